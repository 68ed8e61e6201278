"""Attention of spiking transformers, from spikes to the input currents of the next neurons, on images `[B, C, H, W]` of tokens.

A token is a pixel, so every linear layer over tokens is a 1x1 convolution. Channels are split evenly among the heads. The neurons
between the products and the last convolution have half of the network's threshold, as in the released code of all these papers.
"""

from dataclasses import replace

from torch import Tensor, nn

from .layers import Layers

# The threshold of an attention's own neurons, as a share of the network's; and the factor on the product of q, k and v.
SHARE, SCALE = 0.5, 0.125


class SelfAttention(nn.Module):
    """Spiking self-attention without softmax (SSA; Zhou et al., Spikformer, ICLR 2023).

        y = W spikes(0.125 q k^T v)

    q, k and v are spikes of 1x1 convolutions with batch-norm of the input, `[N, d]` for each head; W is such a convolution too.
    Without a softmax the product is associative, and k^T v comes first, which costs N d² and not N² d. Products of spikes are whole
    numbers, so the order changes no result.

    Args:
        layers: the kinds of layer.
        channels: C, of the input and the output; a multiple of `heads`.
        heads: among which the channels are split.
        bias: whether the convolutions of q, k and v have one; W has it.
    """

    def __init__(self, layers: Layers, channels: int, heads: int, *, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        first = replace(layers, conv_bias=bias)
        self.q, self.k, self.v = (spikes_of(first, channels) for _ in range(3))
        self.neuron = layers.neuron(channels, SHARE)
        self.project = replace(layers, conv_bias=True).conv_norm(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._by_head(layer(x)) for layer in (self.q, self.k, self.v))
        mixed = (v @ k.transpose(-2, -1)) @ q * SCALE
        return self.project(self.neuron(mixed.flatten(1, 2).unflatten(2, x.shape[-2:])))

    def _by_head(self, x: Tensor) -> Tensor:
        """`[B, C, H, W] -> [B, heads, d, N]`"""
        return x.flatten(2).unflatten(1, (self.heads, -1))


class SpikeDrivenAttention(nn.Module):
    """Spike-driven self-attention: masks and sums in place of matrix products (SDSA; Yao et al., NeurIPS 2023).

        y = W (q * spikes(Σ_tokens k * v))

    The sum has one entry for each channel, so each head and each channel of it are by themselves, and the cost is linear in both
    tokens and channels. A neuron with a spike lets a channel of q through, for all tokens.

    Args:
        layers: the kinds of layer.
        channels: C, of the input and the output.
    """

    def __init__(self, layers: Layers, channels: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (spikes_of(layers, channels) for _ in range(3))
        self.neuron = layers.neuron(channels, SHARE)
        self.project = replace(layers, conv_bias=True).conv_norm(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        gate = self.neuron((k * v).sum((2, 3), keepdim=True))
        return self.project(q * gate)


class TokenAttention(nn.Module):
    """Q-K attention over tokens (QKTA; Zhou et al., QKFormer, NeurIPS 2024).

        y = W (k * spikes(Σ_channels q))

    The sum has one entry for each head and token. A neuron with a spike lets a token of k through, for all channels of its head.

    Args:
        layers: the kinds of layer.
        channels: C, of the input and the output; a multiple of `heads`.
        heads: among which the channels are split.
    """

    def __init__(self, layers: Layers, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k = (spikes_of(layers, channels) for _ in range(2))
        self.neuron = layers.neuron(heads, SHARE)
        self.project = replace(layers, conv_bias=True).conv_norm(channels, channels, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (layer(x).unflatten(1, (self.heads, -1)) for layer in (self.q, self.k))
        gate = self.neuron(q.sum(2))
        return self.project((k * gate.unsqueeze(2)).flatten(1, 2))


def spikes_of(layers: Layers, count: int) -> nn.Sequential:
    """Queries, keys or values of so many channels: spikes of a 1x1 convolution with batch-norm."""
    return nn.Sequential(layers.conv_norm(count, count, kernel=1), layers.neuron(count))


def mlp(layers: Layers, channels: int, ratio: int = 4) -> nn.Sequential:
    """Two 1x1 convolutions with batch-norm and neurons between them, with `ratio` times as many hidden channels."""
    hidden, biased = ratio * channels, replace(layers, conv_bias=True)
    return nn.Sequential(
        biased.conv_norm(channels, hidden, kernel=1),
        layers.neuron(hidden),
        biased.conv_norm(hidden, channels, kernel=1),
    )
