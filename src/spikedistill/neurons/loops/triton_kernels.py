"""Triton kernels of the loops in `fused` and `eligibility`, launched by `on_gpu`.

A program has a tile of neurons and goes through the timesteps of a block, with membranes in registers. With TRITON_INTERPRET=1 in
the environment when this is imported, the kernels run on a CPU, slowly, for tests.
"""

import triton
import triton.language as tl


@triton.jit
def _program(values, VALUES: tl.constexpr):
    """The place of this program's tile, down and across, and the number of tiles down."""
    tiles = tl.cdiv(values, VALUES)
    return tl.program_id(0) // tiles, tl.num_programs(0) // tiles, tl.program_id(0) % tiles


@triton.jit
def _tile(down, across, rows, values, ROWS: tl.constexpr, VALUES: tl.constexpr):
    """Rows and values of a tile, their offsets in memory, and the mask of those that exist."""
    row = down * ROWS + tl.arange(0, ROWS)
    value = across * VALUES + tl.arange(0, VALUES)
    return (
        row,
        value,
        row.to(tl.int64)[:, None] * values + value[None, :],
        (row < rows)[:, None] & (value < values)[None, :],
    )


@triton.jit
def _of_channel(pointer, row, value, rows, values, BY_ROW: tl.constexpr):
    """A value per channel, in a form that broadcasts over the tile."""
    if BY_ROW:
        found = tl.load(pointer + row, row < rows, 0.0)[:, None]
    else:
        found = tl.load(pointer + value, value < values, 0.0)[None, :]
    return found


@triton.jit
def _current(x, residual, scale, shift, place, inside, t, size, precision, STILL: tl.constexpr):
    """The current of one timestep, and x, which is the same at all timesteps if the input is still."""
    x_t = tl.load(x + (0 if STILL else t * size) + place, inside, 0.0)
    current = x_t.to(precision) * scale + shift
    if residual is not None:
        if residual.dtype.element_ty == tl.uint8:
            current += ((tl.load(residual + place, inside, 0) >> t) & 1).to(precision)
        else:
            current += tl.load(residual + t * size + place, inside, 0.0).to(precision)
    return current, x_t


@triton.jit
def _advance(v, current, decay, threshold, v_reset, HARD: tl.constexpr):
    """One timestep from the membrane v: the membrane before the spike, the spike, and the membrane after its reset."""
    u = decay * v + current
    fires = u - threshold >= 0
    after = tl.where(fires, v_reset, u) if HARD else tl.where(fires, u - threshold, u)
    return u, fires, after


@triton.jit
def _slope(distance, FORM: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, END: tl.constexpr):
    """The surrogate's derivative; see `surrogate.py`."""
    away = tl.abs(distance)
    if FORM == "logistic":
        e = tl.exp(-WIDTH * away)
        slope = HEIGHT * e / ((1 + e) * (1 + e))
        if END < 1e9:
            slope = tl.where(away < END, slope, 0.0)
    elif FORM == "rectangle":
        slope = tl.where(away < END, HEIGHT, 0.0)
    elif FORM == "triangle":
        slope = HEIGHT * tl.maximum(WIDTH - away, 0.0)
    else:
        slope = HEIGHT / (1 + (WIDTH * distance) * (WIDTH * distance))
    return slope


@triton.jit
def fire_kernel(
    x, scale, shift, residual, membrane, v_init, spikes, bits, after, rows, values, decay, threshold, v_reset,
    HARD: tl.constexpr, T: tl.constexpr, STILL: tl.constexpr,
    BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    down, _, across = _program(values, VALUES)
    row, value, place, inside = _tile(down, across, rows, values, ROWS, VALUES)
    size = tl.cast(rows, tl.int64) * values
    scales = _of_channel(scale, row, value, rows, values, BY_ROW)
    shifts = _of_channel(shift, row, value, rows, values, BY_ROW)
    if membrane is None:
        v = tl.full((ROWS, VALUES), 0.0, scales.dtype) + v_init
    else:
        v = tl.load(membrane + place, inside, 0.0)
    byte = tl.zeros((ROWS, VALUES), tl.int32)
    for t in tl.static_range(T):
        current, x_t = _current(x, residual, scales, shifts, place, inside, t, size, scales.dtype, STILL)
        _, fires, v = _advance(v, current, decay, threshold, v_reset, HARD)
        byte |= fires.to(tl.int32) << t
        tl.store(spikes + t * size + place, fires.to(scales.dtype).to(x_t.dtype), inside)
    tl.store(bits + place, byte.to(tl.uint8), inside)
    if after is not None:
        tl.store(after + place, v, inside)


@triton.jit
def gradient_kernel(
    grad, x, scale, shift, residual, membrane, v_init, ahead, to_current, behind, mean, sums, shares, to_x,
    rows, values, channels, decay, threshold, v_reset, HARD: tl.constexpr,
    FORM: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, END: tl.constexpr,
    T: tl.constexpr, STILL: tl.constexpr, DETACH_RESET: tl.constexpr, DETACH_MEMBRANE: tl.constexpr,
    BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    down, number, across = _program(values, VALUES)
    size = tl.cast(rows, tl.int64) * values
    precision = scale.dtype.element_ty
    total = tl.zeros((ROWS, VALUES), precision)
    product = tl.zeros((ROWS, VALUES), precision)
    for block in range(down, tl.cdiv(rows, ROWS), number):
        row, value, place, inside = _tile(block, across, rows, values, ROWS, VALUES)
        scales = _of_channel(scale, row, value, rows, values, BY_ROW)
        shifts = _of_channel(shift, row, value, rows, values, BY_ROW)
        if membrane is None:
            v = tl.full((ROWS, VALUES), 0.0, precision) + v_init
        else:
            v = tl.load(membrane + place, inside, 0.0)
        before = ()
        inputs = ()
        for t in tl.static_range(T):
            current, x_t = _current(x, residual, scales, shifts, place, inside, t, size, precision, STILL)
            u, _, v = _advance(v, current, decay, threshold, v_reset, HARD)
            before = before + (u,)
            inputs = inputs + (x_t,)
        if mean is not None:
            means = _of_channel(mean, row % channels if BY_ROW else row, value, rows, values, BY_ROW)
        if shares is not None:
            share = _of_channel(shares, row % channels if BY_ROW else row, value, rows, values, BY_ROW)
            share_of_x = _of_channel(shares + channels, row % channels if BY_ROW else row, value, rows, values, BY_ROW)
        all_steps = tl.zeros((ROWS, VALUES), precision)
        to_v = tl.zeros((ROWS, VALUES), precision) if ahead is None else tl.load(ahead + place, inside, 0.0)
        for step in tl.static_range(T):
            t = T - 1 - step
            to_spikes = tl.load(grad + t * size + place, inside, 0.0).to(precision)
            u = before[T - 1 - step]
            x_t = inputs[T - 1 - step]
            if not DETACH_RESET:
                to_spikes += to_v * ((v_reset - u) if HARD else -threshold)
            survives = tl.where(u - threshold >= 0, 0.0, to_v) if HARD else to_v
            to_u = survives + to_spikes * _slope(u - threshold, FORM, WIDTH, HEIGHT, END)
            to_v = tl.zeros((ROWS, VALUES), precision) if DETACH_MEMBRANE else decay * to_u
            if STILL:
                all_steps += to_u
            elif to_current is not None:
                tl.store(to_current + t * size + place, to_u.to(x_t.dtype), inside)
            if sums is not None:
                total += to_u
                product += to_u * (x_t.to(precision) - means)
            if to_x is not None:
                through = to_u - share - share_of_x * (x_t.to(precision) - means)
                tl.store(to_x + t * size + place, (scales * through).to(x_t.dtype), inside)
        if STILL:
            tl.store(to_current + place, all_steps.to(inputs[0].dtype), inside)
        if behind is not None:
            tl.store(behind + place, to_v, inside)
    if sums is not None:
        _store_parts(sums, total, product, rows, values, BY_ROW, ROWS, VALUES)


@triton.jit
def _store_parts(parts, first, second, rows, values, BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr):
    """Store this program's part of two sums over each channel, `[2, programs, rows or values]`; tiles are zero outside."""
    down, number, across = _program(values, VALUES)
    row, value, _, _ = _tile(down, across, rows, values, ROWS, VALUES)
    if BY_ROW:  # each program has one tile
        here = parts + across * rows + row
        other = here + tl.cdiv(values, VALUES) * rows
        tl.store(here, tl.sum(first, 1), row < rows)
        tl.store(other, tl.sum(second, 1), row < rows)
    else:
        here = parts + down * values + value
        other = here + number * values
        tl.store(here, tl.sum(first, 0), value < values)
        tl.store(other, tl.sum(second, 0), value < values)


@triton.jit
def _sum_parts(parts, number, channel, channels, PARTS: tl.constexpr, CHANNELS: tl.constexpr):
    """Both sums over the parts of these channels."""
    first = tl.zeros((PARTS, CHANNELS), tl.float32)
    second = tl.zeros((PARTS, CHANNELS), tl.float32)
    for start in range(0, number, PARTS):
        part = start + tl.arange(0, PARTS)
        inside = (part < number)[:, None] & (channel < channels)[None, :]
        place = part[:, None] * channels + channel[None, :]
        first += tl.load(parts + place, inside, 0.0)
        second += tl.load(parts + number * channels + place, inside, 0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def share_kernel(
    parts, inv_std, shares, to_weight, to_bias, number, channels, count, PARTS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Compute the share of the statistics and the gradients of weight and bias from the parts of a gradient's sums."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    total, product = _sum_parts(parts, number, channel, channels, PARTS, CHANNELS)
    scale = tl.load(inv_std + channel, inside, 0.0)
    tl.store(shares + channel, total / count, inside)
    tl.store(shares + channels + channel, product / count * scale * scale, inside)
    tl.store(to_weight + channel, product * scale, inside)
    tl.store(to_bias + channel, total, inside)


@triton.jit
def moments_kernel(x, parts, rows, values, channels, BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr):
    """Store parts of the sums, over each channel, of the distance from its first value and of its square."""
    down, number, across = _program(values, VALUES)
    total = tl.zeros((ROWS, VALUES), tl.float32)
    square = tl.zeros((ROWS, VALUES), tl.float32)
    for block in range(down, tl.cdiv(rows, ROWS), number):
        row, value, place, inside = _tile(block, across, rows, values, ROWS, VALUES)
        if BY_ROW:
            first = tl.load(x + (row % channels).to(tl.int64) * values, row < rows, 0.0)[:, None]
        else:
            first = tl.load(x + value, value < values, 0.0)[None, :]
        distance = tl.load(x + place, inside, 0.0).to(tl.float32) - first.to(tl.float32)
        distance = tl.where(inside, distance, 0.0)
        total += distance
        square += distance * distance
    _store_parts(parts, total, square, rows, values, BY_ROW, ROWS, VALUES)


@triton.jit
def statistics_kernel(
    parts, x, stride, mean, inv_std, running_mean, running_var, number, channels, count, momentum, eps,
    PARTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Compute mean and 1 / std from the parts of `moments_kernel`, and update the running statistics, if there are any."""
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    total, square = _sum_parts(parts, number, channel, channels, PARTS, CHANNELS)
    from_first = total / count
    average = tl.load(x + channel.to(tl.int64) * stride, inside, 0.0).to(tl.float32) + from_first
    var = tl.maximum(square / count - from_first * from_first, 0.0)
    tl.store(mean + channel, average, inside)
    tl.store(inv_std + channel, 1.0 / tl.sqrt(var + eps), inside)
    if running_mean is not None:
        kept = tl.load(running_mean + channel, inside, 0.0)
        tl.store(running_mean + channel, kept + momentum * (average - kept), inside)
        kept = tl.load(running_var + channel, inside, 0.0)
        unbiased = var * (count / tl.maximum(count - 1.0, 1.0))
        tl.store(running_var + channel, kept + momentum * (unbiased - kept), inside)


@triton.jit
def respond_kernel(
    x, scale, shift, residual, v_init, spikes, rates, answer, rows, values, decay, threshold, v_reset,
    HARD: tl.constexpr, FORM: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, END: tl.constexpr,
    M: tl.constexpr, LENGTH: tl.constexpr, STILL: tl.constexpr, DETACH_RESET: tl.constexpr,
    BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    down, _, across = _program(values, VALUES)
    row, value, place, inside = _tile(down, across, rows, values, ROWS, VALUES)
    size = tl.cast(rows, tl.int64) * values
    scales = _of_channel(scale, row, value, rows, values, BY_ROW)
    shifts = _of_channel(shift, row, value, rows, values, BY_ROW)
    v = tl.full((ROWS, VALUES), 0.0, scales.dtype) + v_init
    for segment in tl.static_range(M):
        to_v = tl.zeros((ROWS, VALUES), scales.dtype)
        total = tl.zeros((ROWS, VALUES), scales.dtype)
        count = tl.zeros((ROWS, VALUES), scales.dtype)
        for step in tl.static_range(LENGTH):
            t = segment * LENGTH + step
            current, x_t = _current(x, residual, scales, shifts, place, inside, t, size, scales.dtype, STILL)
            u, fires, v = _advance(v, current, decay, threshold, v_reset, HARD)
            slope = _slope(u - threshold, FORM, WIDTH, HEIGHT, END)
            to_u = 1.0 + decay * to_v
            total += slope * to_u
            if HARD:
                survives = tl.where(fires, 0.0, 1.0)
                if not DETACH_RESET:
                    survives += (v_reset - u) * slope
                to_v = survives * to_u
            else:
                to_v = to_u if DETACH_RESET else (1.0 - threshold * slope) * to_u
            fired = fires.to(scales.dtype)
            count += fired
            tl.store(spikes + t * size + place, fired.to(x_t.dtype), inside)
        tl.store(rates + segment * size + place, (count / LENGTH).to(x_t.dtype), inside)
        tl.store(answer + segment * size + place, total / LENGTH, inside)


@triton.jit
def unpack_kernel(bits, spikes, size, first, T: tl.constexpr, TILE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < size
    byte = tl.load(bits + place, inside, 0).to(tl.int32) >> first
    for t in tl.static_range(T):
        tl.store(spikes + t * size + place, ((byte >> t) & 1).to(tl.float32).to(spikes.dtype.element_ty), inside)
