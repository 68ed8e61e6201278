"""The allow-list of functions that are defined over time, by the names under which `torch.nn` modules call them."""

TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
LINEAR = TRANSPOSED | {"conv1d", "conv2d", "conv3d", "linear"}
NONLINEAR_LAYERS = frozenset(
    {
        "embedding", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "lp_pool1d", "lp_pool2d", "lp_pool3d",
        "rms_norm",
    }
)  # fmt: skip
RESAMPLINGS = frozenset(
    {
        "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
        "interpolate",
    }
)  # fmt: skip
MAX_POOLS = frozenset(
    {"adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"}
)
DROPOUTS = frozenset({"alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout"})
# Linear in the signal, one timestep at a time, whether or not they change its shape.
SHAPES = frozenset(
    {
        "__getitem__", "bfloat16", "cat", "channel_shuffle", "chunk", "clone", "concat", "concatenate", "contiguous", "detach",
        "double", "expand", "expand_as", "flatten", "flip", "float", "fold", "half", "index_select", "mean",
        "movedim", "narrow", "neg", "__neg__", "pad", "permute", "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape",
        "reshape_as", "roll", "select", "split", "squeeze", "stack", "sum", "swapaxes", "tile", "to", "transpose", "type_as",
        "unbind", "unflatten", "unfold", "unsqueeze", "view", "view_as",
    }
)  # fmt: skip
# PyTorch may return a view of the input, or the input itself.
VIEWS = frozenset({"einsum"}) | SHAPES - frozenset(
    {
        "cat", "clone", "concat", "concatenate", "flip", "fold", "index_select", "mean", "neg", "__neg__", "pad", "repeat", "roll",
        "stack", "sum", "tile",
    }
)  # fmt: skip
ADDITIONS = frozenset({"__add__", "__radd__", "add"})
SUMS = frozenset({"__add__", "__radd__", "__rsub__", "__sub__", "add", "sub"})
# Linear in each of their signals.
PRODUCTS = frozenset({"__matmul__", "__mul__", "__rmul__", "bmm", "einsum", "matmul", "mul"})
QUOTIENTS = frozenset({"__truediv__", "div"})
NONLINEAR = frozenset(
    {
        "__pow__", "__rtruediv__", "abs", "amax", "amin", "celu", "clamp", "elu", "exp", "gelu", "glu", "hardshrink",
        "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "log_softmax", "maximum", "minimum", "mish",
        "normalize", "pow", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin", "softplus",
        "softshrink", "softsign", "sqrt", "square", "tanh", "tanhshrink",
    }
)  # fmt: skip

# Layers treat the samples of a batch alike; the other functions are called for every timestep.
LAYERS = LINEAR | RESAMPLINGS | MAX_POOLS | NONLINEAR_LAYERS | DROPOUTS | {"batch_norm"}
PER_TIMESTEP = SHAPES | SUMS | PRODUCTS | QUOTIENTS | NONLINEAR
