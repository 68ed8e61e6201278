"""Module patterns as users write them: plain `torch.nn` networks for [B, ...] with `LIF` between the layers.

`PATTERNS[name]` holds what builds each, the shape of a sample, and where it cannot run:

- rate: False where a stage on spikes is not linear in time, which only the unrolled rules can follow.
- static_only: True where "rate" works because something is constant in time.
- stream: False where one timestep does not know enough.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from spikedistill import LIF, Learned

IMAGE = (2, 6, 6)
CLASSES = 3


@dataclass
class Pattern:
    build: Callable[[], nn.Module]
    sample: tuple[int, ...] = IMAGE
    rate: bool = True
    static_only: bool = False
    stream: bool = True
    naive: Callable[[], nn.Module] | None = None


PATTERNS: dict[str, Pattern] = {}


def pattern(**options):
    def register(build):
        PATTERNS[build.__name__] = Pattern(build, **options)
        return build

    return register


class Net(nn.Module):
    """A network whose forward is given as a function of itself and its input."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


class Product(nn.Module):
    """A product of two signals that may both vary in time."""

    def __init__(self, form=torch.mul):
        super().__init__()
        self.form = form

    def forward(self, one, other):
        return self.form(one, other)


def conv_bn(inputs, outputs, kernel=3, **options):
    options.setdefault("padding", kernel // 2)
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, **options), nn.BatchNorm2d(outputs))


def block(inputs, outputs, kernel=3, *, lif=None, **options):
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, **options), LIF(**(lif or {})))


def head(features):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, CLASSES))


@pattern()
def sequential():
    return nn.Sequential(block(2, 3), block(3, 4, stride=2), head(36))


@pattern()
def residual_sum():
    return Net(
        lambda m, x: m.head(m.out(m.body(s := m.stem(x)) + s)),
        stem=block(2, 3), body=nn.Sequential(block(3, 3), conv_bn(3, 3)), out=LIF(), head=head(108),
    )  # fmt: skip


@pattern()
def residual_in_place():
    def forward(m, x):
        identity = m.stem(x)
        out = m.second(m.first(identity))
        out += identity
        return m.head(m.out(out))

    return Net(forward, stem=block(2, 3), first=block(3, 3), second=conv_bn(3, 3), out=LIF(), head=head(108))


@pattern()
def residual_in_place_read_under_another_name():
    def forward(m, x):
        identity = m.stem(x)
        out = same = m.body(identity)
        out += identity
        return m.head(m.out(same))

    return Net(forward, stem=block(2, 3), body=conv_bn(3, 3), out=LIF(), head=head(108))


@pattern()
def residual_with_downsampling():
    return Net(
        lambda m, x: m.head(m.out(m.body(s := m.stem(x)) + m.shortcut(s))),
        stem=block(2, 3), body=nn.Sequential(block(3, 4, stride=2), conv_bn(4, 4)),
        shortcut=conv_bn(3, 4, 1, stride=2), out=LIF(), head=head(36),
    )  # fmt: skip


@pattern()
def residual_around_the_static_input():
    """What is constant in time added to what varies, both ways around."""
    return Net(
        lambda m, x: m.head(m.second((c := m.stem(x)) + m.body(m.first(c))) + c),
        stem=conv_bn(2, 3), first=LIF(), body=conv_bn(3, 3), second=LIF(), head=head(108),
    )  # fmt: skip


@pattern()
def concatenation():
    return Net(
        lambda m, x: m.head(m.fuse(torch.cat([m.left(s := m.stem(x)), m.right(s)], dim=1))),
        stem=block(2, 3), left=block(3, 2), right=block(3, 2, 1), fuse=block(4, 3), head=head(108),
    )  # fmt: skip


@pattern()
def dense_connections():
    """Concatenation of the input, constant in time, and of spikes."""

    def forward(m, x):
        features = [x]
        for layer in m.layers:
            features.append(layer(torch.cat(features, 1)))
        return m.head(torch.cat(features[1:], 1))

    return Net(forward, layers=nn.ModuleList([block(2, 2), block(4, 2), block(6, 2)]), head=head(216))


@pattern()
def module_list_loop():
    def forward(m, x):
        for layer in m.layers:
            x = layer(x)
        return m.head(x)

    return Net(forward, layers=nn.ModuleList([block(2, 3), block(3, 3), block(3, 4, stride=2)]), head=head(36))


@pattern()
def view_by_batch_size():
    return Net(lambda m, x: m.fc((s := m.body(x)).view(s.size(0), -1)), body=block(2, 3), fc=nn.Linear(108, CLASSES))


@pattern()
def flatten_function():
    return Net(lambda m, x: m.fc(torch.flatten(m.body(x), 1)), body=block(2, 3), fc=nn.Linear(108, CLASSES))


@pattern()
def reshape_and_unflatten():
    return Net(
        lambda m, x: m.fc(m.conv(m.unflatten(m.body(x).reshape(x.shape[0], 108))).reshape(x.shape[0], -1)),
        body=block(2, 3), unflatten=nn.Unflatten(1, (12, 3, 3)), conv=block(12, 3), fc=nn.Linear(27, CLASSES),
    )  # fmt: skip


@pattern()
def mean_over_space():
    return Net(lambda m, x: m.fc(m.body(x).mean((2, 3))), body=block(2, 4), fc=nn.Linear(4, CLASSES))


@pattern()
def mean_and_sum_that_keep_dimensions():
    return Net(
        lambda m, x: m.fc(m.out(torch.mean(s := m.body(x), dim=(2, 3), keepdim=True) * 4 + s.sum(3, True)).flatten(1)),
        body=block(2, 4), out=block(4, 4), fc=nn.Linear(24, CLASSES),
    )  # fmt: skip


@pattern()
def global_average_pooling():
    return nn.Sequential(block(2, 3), block(3, 4), nn.AdaptiveAvgPool2d(1), head(4))


@pattern()
def average_pooling():
    pool = nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(block(2, 3), pool, block(3, 3), nn.AvgPool2d(2), head(12))


@pattern()
def max_pooling_of_spikes():
    return nn.Sequential(block(2, 3), nn.MaxPool2d(2), block(3, 4), nn.MaxPool2d(3, 2, 1), head(16))


@pattern()
def max_pooling_of_currents():
    return nn.Sequential(block(2, 3), *conv_bn(3, 4), nn.MaxPool2d(2), LIF(), head(36))


@pattern()
def max_pooling_with_dilation_and_ceil_mode():
    return nn.Sequential(block(2, 3), nn.MaxPool2d(2, stride=1, dilation=2, ceil_mode=True), block(3, 3), head(48))


@pattern()
def max_pooling_of_the_static_stem():
    return nn.Sequential(*conv_bn(2, 3), nn.MaxPool2d(2), LIF(), block(3, 3), head(27))


@pattern()
def adaptive_max_pooling():
    return nn.Sequential(block(2, 3), nn.AdaptiveMaxPool2d((3, 2)), block(3, 4), head(24))


@pattern(rate=False)
def power_average_pooling():
    return Net(
        lambda m, x: m.head(m.line((s := m.body(x)).flatten(2)) + m.square(s).flatten(2) + m.cube(s.unsqueeze(2)).flatten(2)),
        body=block(2, 3), line=nn.LPPool1d(1, 6), square=nn.LPPool2d(2, (2, 3)), cube=nn.LPPool3d(3, (1, 3, 2)), head=head(18),
    )  # fmt: skip


@pattern(sample=(2, 12))
def one_dimensional():
    return nn.Sequential(
        nn.Conv1d(2, 3, 3, padding=1), nn.BatchNorm1d(3), LIF(), nn.MaxPool1d(2),
        nn.ConvTranspose1d(3, 4, 3, stride=2, output_padding=1), nn.BatchNorm1d(4), LIF(), nn.Dropout1d(0.3),
        nn.AvgPool1d(3), nn.Conv1d(4, 3, 2, padding="same"), nn.BatchNorm1d(3), LIF(),
        nn.AdaptiveMaxPool1d(3), nn.AdaptiveAvgPool1d(2), head(6),
    )  # fmt: skip


@pattern(sample=(2, 4, 4, 4))
def three_dimensional():
    return nn.Sequential(
        nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), LIF(), nn.MaxPool3d(2),
        nn.ConvTranspose3d(3, 2, 2, stride=2), nn.BatchNorm3d(2), LIF(), nn.Dropout3d(0.3),
        nn.AvgPool3d(2), nn.AdaptiveMaxPool3d(2), nn.AdaptiveAvgPool3d((2, 1, 1)), head(4),
    )  # fmt: skip


@pattern()
def transposed_convolution():
    return nn.Sequential(
        block(2, 3, stride=2), nn.ConvTranspose2d(3, 4, 3, 2, padding=1, output_padding=1), nn.BatchNorm2d(4), LIF(),
        nn.ConvTranspose2d(4, 2, (2, 3), stride=(1, 2), groups=2, dilation=(2, 1), bias=False), nn.BatchNorm2d(2), LIF(),
        head(208),
    )  # fmt: skip


@pattern()
def grouped_and_depthwise_convolution():
    return nn.Sequential(
        block(2, 4), block(4, 6, groups=2), block(6, 6, groups=6, bias=False), block(6, 3, 1), head(108)
    )


@pattern()
def dilated_and_strided_convolution():
    return nn.Sequential(
        block(2, 3), nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), nn.BatchNorm2d(4), LIF(),
        head(48),
    )  # fmt: skip


@pattern()
def same_padding_with_even_kernels():
    return nn.Sequential(
        block(2, 3), block(3, 3, 2, padding="same"), block(3, 4, 4, padding="same", dilation=(1, 3)),
        block(4, 3, 3, padding="valid"), head(48),
    )  # fmt: skip


@pattern()
def padding_modes():
    return nn.Sequential(
        block(2, 3, padding_mode="circular"), block(3, 3, padding_mode="reflect"),
        block(3, 3, padding_mode="replicate"), block(3, 3, 2, padding="same", padding_mode="circular"), head(108),
    )  # fmt: skip


@pattern()
def padding_layers():
    return nn.Sequential(
        block(2, 3), nn.ZeroPad2d((1, 0, 2, 1)), nn.ConstantPad2d(1, 0.7), nn.ReflectionPad2d(1), block(3, 3, padding=0),
        head(297),
    )  # fmt: skip


@pattern()
def dropout_of_elements():
    return nn.Sequential(
        nn.Dropout(0.2), block(2, 3), nn.Dropout(0.5), block(3, 3), nn.Flatten(), nn.Dropout(0.3), head(108)
    )


@pattern()
def dropout_of_channels():
    return nn.Sequential(block(2, 4), nn.Dropout2d(0.5), block(4, 4), nn.Dropout2d(0.4, inplace=True), head(144))


@pattern()
def alpha_dropout():
    return nn.Sequential(block(2, 3), nn.AlphaDropout(0.4), block(3, 3), head(108))


@pattern()
def feature_alpha_dropout():
    return nn.Sequential(block(2, 4), nn.FeatureAlphaDropout(0.4), block(4, 3), head(108))


@pattern()
def batch_norm_without_affine():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), LIF(),
        nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, affine=False), LIF(), head(12),
    )  # fmt: skip


@pattern(stream=False)
def batch_norm_without_running_statistics():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), LIF(),
        nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False), LIF(), head(12),
    )  # fmt: skip


@pattern()
def batch_norm_with_a_cumulative_average():
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, momentum=None), LIF(),
        nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, momentum=None, eps=1e-2), LIF(), head(12),
    )  # fmt: skip


@pattern()
def batch_norm_of_features():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(72, 5), nn.BatchNorm1d(5), LIF(decay=0.8),
        nn.Linear(5, 6, bias=False), nn.BatchNorm1d(6), LIF(), nn.Linear(6, CLASSES),
    )  # fmt: skip


@pattern()
def channel_indexing():
    def forward(m, x):
        s = m.body(x)
        picked = s[:, [0, 2]] + s[:, torch.tensor([3, 1])] + s[:, 1:3] + s[:, 1].unsqueeze(1) + s[..., 2:4, :, :]
        return m.head(m.out(picked))

    return Net(forward, body=block(2, 4), out=block(2, 3), head=head(108))


@pattern()
def chunks_and_splits():
    def forward(m, x):
        left, right = m.body(x).chunk(2, dim=1)
        first, second = torch.split(m.mix(torch.cat((right, left), 1)), [1, 3], dim=1)
        return m.head(m.out(first + second[:, :1]))

    return Net(forward, body=block(2, 4), mix=block(4, 4), out=block(1, 3), head=head(108))


@pattern()
def stacking_and_unbinding():
    def forward(m, x):
        stacked = torch.stack([m.left(x), m.right(x)], dim=2)
        first, second = stacked.unbind(2)
        return m.head(m.out(stacked.sum(2) + first - second))

    return Net(forward, left=block(2, 3), right=block(2, 3, 1), out=block(3, 3), head=head(108))


@pattern()
def channels_last_linear():
    return Net(
        lambda m, x: m.head(m.out(m.mlp(m.body(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous())),
        body=block(2, 3), mlp=nn.Linear(3, 4), out=nn.Sequential(nn.BatchNorm2d(4), LIF()), head=head(144),
    )  # fmt: skip


@pattern()
def tokens():
    """Patches as [B, N, D], as in transformers."""
    return Net(
        lambda m, x: m.fc(m.lif(m.norm(m.mlp(m.body(x).flatten(2).transpose(1, 2)).transpose(-1, -2))).mean(2)),
        body=block(2, 3), mlp=nn.Linear(3, 4), norm=nn.BatchNorm1d(4), lif=LIF(), fc=nn.Linear(4, CLASSES),
    )  # fmt: skip


@pattern()
def shape_operations():
    def forward(m, x):
        s = m.body(x)
        s = (
            s.roll(1, 3)
            + s.flip(2)
            + s.narrow(1, 0, 1).expand(-1, 3, -1, -1)
            + s.select(1, 2).unsqueeze(1).repeat(1, 3, 1, 1)
        )
        s = m.out(s.swapaxes(2, 3).movedim(1, -1).movedim(-1, 1))
        return m.fc(s.mean(3, keepdim=True).squeeze(3).flatten(1).clone())

    return Net(forward, body=block(2, 3), out=block(3, 3), fc=nn.Linear(18, CLASSES))


@pattern()
def pixel_shuffling():
    return nn.Sequential(
        block(2, 4), nn.PixelShuffle(2), block(1, 2), nn.PixelUnshuffle(2), nn.ChannelShuffle(2), block(8, 2), head(72)
    )


@pattern()
def interpolation():
    return Net(
        lambda m, x: m.head(F.interpolate(m.mid(m.up(m.body(x))), size=(4, 3), mode="nearest")),
        body=block(2, 3), up=nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        mid=block(3, 2, stride=2), head=head(24),
    )  # fmt: skip


@pattern()
def unfold_and_fold():
    return Net(
        lambda m, x: m.head(m.out(m.fold(m.unfold(m.body(x))))),
        body=block(2, 3), unfold=nn.Unfold(3, padding=1), fold=nn.Fold((6, 6), 3, padding=1), out=block(3, 3), head=head(108),
    )  # fmt: skip


@pattern()
def weight_norm():
    return nn.Sequential(
        parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), nn.BatchNorm2d(3), LIF(),
        parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), LIF(),
        nn.Flatten(), parametrizations.weight_norm(nn.Linear(16, CLASSES)),
    )  # fmt: skip


def _checkpointed(run):
    return Net(
        lambda m, x: m.head(run(m, m.stem(x))),
        stem=block(2, 3), body=nn.Sequential(nn.Conv2d(3, 4, 3), LIF(threshold=0.3), nn.Conv2d(4, 3, 3), LIF(threshold=0.2)),
        head=head(12),
    )  # fmt: skip


PATTERNS["checkpointing"] = Pattern(
    lambda: _checkpointed(lambda m, x: checkpoint(m.body, x, use_reentrant=False)),
    naive=lambda: _checkpointed(lambda m, x: m.body(x)),
)


@pattern()
def one_neuron_layer_used_twice():
    return Net(
        lambda m, x: m.head(m.lif(m.second(m.lif(m.first(x))))),
        first=conv_bn(2, 3), second=conv_bn(3, 3), lif=LIF(decay="learned"), head=head(108),
    )  # fmt: skip


@pattern()
def one_convolution_used_twice():
    return Net(
        lambda m, x: m.head(m.out(m.norm(m.conv(m.lif(m.conv(x)))))),
        conv=nn.Conv2d(2, 2, 3, padding=1), norm=nn.BatchNorm2d(2), lif=LIF(threshold=0.4), out=LIF(), head=head(72),
    )  # fmt: skip


@pattern()
def learned_decay():
    lif = {"decay": "learned:0.7"}
    return nn.Sequential(block(2, 3, lif=lif), block(3, 4, lif=lif), head(144))


@pattern()
def learned_initial_membrane():
    def lif(channels):
        neuron = LIF(v_init="learned", channels=channels, v_reset=0.0)
        neuron.v_init.data.uniform_(-0.3, 0.6)
        return neuron

    return nn.Sequential(
        *conv_bn(2, 3),
        lif(3),
        *conv_bn(3, 4),
        lif(4),
        nn.Flatten(),
        nn.Linear(144, 5),
        nn.BatchNorm1d(5),
        lif(5),
        head(5),
    )


@pattern()
def learned_thresholds():
    return nn.Sequential(
        block(2, 3, lif={"threshold": "learned:0.8"}),
        block(3, 4, lif={"threshold": Learned(0.6, per="channel"), "channels": 4, "detach_reset": True}),
        head(144),
    )


@pattern()
def learned_thresholds_under_hard_reset():
    return nn.Sequential(
        block(2, 3, lif={"threshold": "learned", "channels": 3, "v_reset": 0.2, "v_init": "half"}),
        block(
            3, 4, lif={"threshold": "learned", "v_reset": 0.0, "detach_reset": True, "decay": "learned", "channels": 4}
        ),
        head(144),
    )


@pattern()
def everything_learned():
    def lif(channels):
        learned = {"v_init": "learned", "decay": "learned:0.3", "threshold": "learned:0.9"}
        return LIF(**learned, channels=channels, surrogate="triangular")

    return nn.Sequential(*conv_bn(2, 3), lif(3), *conv_bn(3, 4), lif(4), head(144))


@pattern()
def every_reset_and_surrogate():
    options = [
        {"detach_reset": True, "surrogate": "triangular", "v_init": "half"},
        {"v_reset": 0.0, "surrogate": "arctan", "decay": 0.9},
        {"v_reset": -0.2, "detach_reset": True, "surrogate": "rectangular", "threshold": 0.7},
        {"decay": 1.0, "v_init": 0.3},
        {"decay": 0.0, "surrogate": "dspike"},
    ]
    return nn.Sequential(block(2, 3, lif=options[0]), *[block(3, 3, lif=o) for o in options[1:]], head(108))


@pattern()
def neurons_after_neurons():
    return nn.Sequential(block(2, 3, lif={"threshold": 0.5}), LIF(threshold=1.3, decay=0.7), block(3, 3), head(108))


@pattern()
def a_neuron_for_an_output():
    return nn.Sequential(block(2, 3), nn.Flatten(), nn.Linear(108, CLASSES), nn.BatchNorm1d(CLASSES), LIF())


@pattern()
def scaling_by_parameters():
    def forward(m, x):
        s = m.body(x)
        s = s * m.scale.view(1, -1, 1, 1) + m.shift.view(-1, 1, 1)
        s = m.gain * torch.mul(s, 0.5) / m.divisor - (1 - s) / 3 + (-s).div(7) + torch.add(s, s, alpha=0.1)
        return m.head(m.out(s))

    return Net(
        forward, body=block(2, 3), out=block(3, 3), head=head(108), scale=nn.Parameter(torch.rand(3) + 0.5),
        shift=nn.Parameter(torch.randn(3)), gain=nn.Parameter(torch.tensor(1.4)), divisor=nn.Parameter(torch.tensor(0.8)),
    )  # fmt: skip


@pattern()
def scaling_in_place():
    def forward(m, x):
        s = m.body(x)
        s *= m.scale
        s -= 0.1
        s /= 2
        return m.head(m.out(s))

    return Net(
        forward, body=block(2, 3), out=block(3, 3), head=head(108), scale=nn.Parameter(torch.rand(3, 1, 1) + 0.5)
    )


@pattern()
def products_with_matrices():
    def forward(m, x):
        tokens = m.body(x).flatten(2)
        mixed = torch.einsum("bcn,nk->bck", tokens, m.mix) + tokens @ m.mix + torch.matmul(m.left, tokens)
        return m.fc(m.lif(m.norm(mixed)).flatten(1))

    return Net(
        forward, body=block(2, 3), norm=nn.BatchNorm1d(3), lif=LIF(), fc=nn.Linear(108, CLASSES),
        mix=nn.Parameter(torch.randn(36, 36) / 4), left=nn.Parameter(torch.randn(3, 3)),
    )  # fmt: skip


@pattern()
def functional_layers():
    """torch.nn.functional called by keyword."""

    def forward(m, x):
        x = m.lif(F.conv2d(x, weight=m.weight, bias=m.bias, stride=2, padding=1))
        x = F.conv2d(input=x, weight=m.second, groups=2)
        x = m.lif(F.avg_pool2d(input=F.pad(x, (1, 1, 0, 0)), kernel_size=2, stride=1))
        return F.linear(torch.flatten(input=x, start_dim=1), m.fc)

    return Net(
        forward, lif=LIF(threshold=0.15), weight=nn.Parameter(torch.randn(4, 2, 3, 3) / 3), bias=nn.Parameter(torch.randn(4) / 3),
        second=nn.Parameter(torch.randn(4, 2, 2, 2) / 2), fc=nn.Parameter(torch.randn(CLASSES, 12)),
    )  # fmt: skip


@pattern(static_only=True)
def gate_that_is_constant_in_time():
    return Net(
        lambda m, x: m.head(m.out(m.body(m.lif(c := m.stem(x))) * torch.sigmoid(c))),
        stem=conv_bn(2, 3), lif=LIF(), body=conv_bn(3, 3), out=LIF(), head=head(108),
    )  # fmt: skip


@pattern(static_only=True)
def ordinary_layers_before_the_first_neuron():
    """An analogue stem of any kind is exact under every rule as long as the input is static."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.InstanceNorm2d(4), nn.GELU(),
        nn.Softmax2d(), nn.LocalResponseNorm(2), nn.LayerNorm([4, 2, 2]), LIF(), head(16),
    )  # fmt: skip


@pattern(rate=False)
def normalisation_of_spikes():
    return nn.Sequential(
        block(2, 4), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), LIF(), nn.Conv2d(4, 3, 3), nn.LayerNorm([3, 2, 2]), LIF(),
        nn.LocalResponseNorm(2), nn.RMSNorm([3, 2, 2]), head(12),
    )  # fmt: skip


@pattern(rate=False)
def analogue_stage():
    return nn.Sequential(
        block(2, 3), nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.PReLU(4), nn.Tanh(),
        nn.SiLU(), nn.BatchNorm2d(4), LIF(), head(64),
    )  # fmt: skip


@pattern(rate=False)
def squeeze_and_excitation():
    return Net(
        lambda m, x: m.head(m.out((s := m.body(x)) * torch.sigmoid(m.fc(s.mean((2, 3))))[:, :, None, None])),
        body=block(2, 4), fc=nn.Linear(4, 4), out=block(4, 3), head=head(108),
    )  # fmt: skip


@pattern(rate=False)
def softmax_attention():
    def forward(m, x):
        q, k, v = m.qkv(m.body(x)).flatten(2).transpose(1, 2).chunk(3, dim=-1)
        mixed = ((q @ k.transpose(-2, -1)) / 2).softmax(-1) @ v
        return m.fc(m.lif(m.norm(mixed.transpose(1, 2))).flatten(1))

    return Net(
        forward, body=block(2, 3), qkv=block(3, 12, 1), norm=nn.BatchNorm1d(4), lif=LIF(), fc=nn.Linear(144, CLASSES)
    )


@pattern()
def product_of_two_spiking_branches():
    return Net(
        lambda m, x: m.head(m.out(m.product(m.left(x), m.right(x)))),
        left=block(2, 3), right=block(2, 3, 1), product=Product(), out=block(3, 3), head=head(108),
    )  # fmt: skip


@pattern()
def product_of_currents():
    return Net(
        lambda m, x: m.head(m.out(m.norm(m.product(m.left(s := m.body(x)), m.right(s))))),
        body=block(2, 3), left=conv_bn(3, 4), right=nn.Conv2d(3, 4, 1), product=Product(), norm=nn.BatchNorm2d(4), out=LIF(),
        head=head(144),
    )  # fmt: skip


@pattern()
def spiking_self_attention():
    def forward(m, x):
        q, k, v = m.qkv(m.body(x)).flatten(2).chunk(3, dim=1)
        mixed = m.second(m.first(v, k.transpose(-2, -1)), q) * 0.125
        return m.fc(m.lif(m.norm(mixed)).flatten(1))

    return Net(
        forward, body=block(2, 3), qkv=block(3, 12, 1), first=Product(torch.matmul), second=Product(torch.bmm),
        norm=nn.BatchNorm1d(4), lif=LIF(), fc=nn.Linear(144, CLASSES),
    )  # fmt: skip


@pattern()
def gates_of_tokens_and_channels():
    def forward(m, x):
        s = m.body(x)
        channels = m.gate(m.first(m.k(s), m.v(s)).sum((2, 3), keepdim=True) / 8)
        tokens = m.gate(m.q(s).sum(1, keepdim=True) / 2)
        return m.head(m.out(m.second(m.third(m.q(s), channels), tokens)))

    return Net(
        forward, body=block(2, 3), q=block(3, 4, 1), k=block(3, 4, 1), v=block(3, 4, 1), gate=LIF(threshold=0.5), first=Product(),
        second=Product(lambda one, other: torch.einsum("bchw,bdhw->bchw", one, other)), third=Product(), out=block(4, 3),
        head=head(108),
    )  # fmt: skip


@pattern()
def identity_and_frozen_layers():
    net = nn.Sequential(nn.Identity(), block(2, 3), block(3, 3), nn.Identity(), head(108))
    for parameter in net[1].parameters():
        parameter.requires_grad_(False)
    return net
