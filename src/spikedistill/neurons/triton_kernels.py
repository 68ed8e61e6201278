"""Triton kernels of the loops in `fused` and `eligibility`, launched by `on_gpu`.

A program has a tile of neurons and goes through the timesteps of a block, with membranes in registers. With TRITON_INTERPRET=1 in
the environment when this is imported, the kernels run on a CPU, slowly, for tests.
"""

import triton
import triton.language as tl


@triton.jit
def _place(rows, values, ROWS: tl.constexpr, VALUES: tl.constexpr):
    """Rows and values of this program's tile."""
    across = tl.cdiv(values, VALUES)
    row = (tl.program_id(0) // across) * ROWS + tl.arange(0, ROWS)
    value = (tl.program_id(0) % across) * VALUES + tl.arange(0, VALUES)
    return row, value


@triton.jit
def _of_channel(pointer, row, value, rows, values, BY_ROW: tl.constexpr):
    """What a channel has, to broadcast over the tile."""
    if BY_ROW:
        found = tl.load(pointer + row, row < rows, 0.0)[:, None]
    else:
        found = tl.load(pointer + value, value < values, 0.0)[None, :]
    return found


@triton.jit
def _current(x, residual, scale, shift, place, inside, t, size, precision):
    """The current of one timestep, and x."""
    x_t = tl.load(x + t * size + place, inside, 0.0)
    current = x_t.to(precision) * scale + shift
    if residual is not None:
        if residual.dtype.element_ty == tl.uint8:
            current += ((tl.load(residual + place, inside, 0) >> t) & 1).to(precision)
        else:
            current += tl.load(residual + t * size + place, inside, 0.0).to(precision)
    return current, x_t


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
    HARD: tl.constexpr, T: tl.constexpr, BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row, value = _place(rows, values, ROWS, VALUES)
    inside = (row < rows)[:, None] & (value < values)[None, :]
    place = row.to(tl.int64)[:, None] * values + value[None, :]
    size = tl.cast(rows, tl.int64) * values
    scales = _of_channel(scale, row, value, rows, values, BY_ROW)
    shifts = _of_channel(shift, row, value, rows, values, BY_ROW)
    if membrane is None:
        v = tl.full((ROWS, VALUES), 0.0, scales.dtype) + v_init
    else:
        v = tl.load(membrane + place, inside, 0.0)
    byte = tl.zeros((ROWS, VALUES), tl.int32)
    for t in tl.static_range(T):
        current, x_t = _current(x, residual, scales, shifts, place, inside, t, size, scales.dtype)
        u = decay * v + current
        fires = u - threshold >= 0
        v = tl.where(fires, v_reset, u) if HARD else tl.where(fires, u - threshold, u)
        byte |= fires.to(tl.int32) << t
        tl.store(spikes + t * size + place, fires.to(scales.dtype).to(x_t.dtype), inside)
    tl.store(bits + place, byte.to(tl.uint8), inside)
    if after is not None:
        tl.store(after + place, v, inside)


@triton.jit
def gradient_kernel(
    grad, x, scale, shift, residual, membrane, v_init, ahead, to_current, behind, mean, sums, shares, to_x,
    rows, values, decay, threshold, v_reset, HARD: tl.constexpr,
    FORM: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, END: tl.constexpr,
    T: tl.constexpr, DETACH_RESET: tl.constexpr, DETACH_MEMBRANE: tl.constexpr,
    BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row, value = _place(rows, values, ROWS, VALUES)
    inside = (row < rows)[:, None] & (value < values)[None, :]
    place = row.to(tl.int64)[:, None] * values + value[None, :]
    size = tl.cast(rows, tl.int64) * values
    scales = _of_channel(scale, row, value, rows, values, BY_ROW)
    shifts = _of_channel(shift, row, value, rows, values, BY_ROW)
    if membrane is None:
        v = tl.full((ROWS, VALUES), 0.0, scales.dtype) + v_init
    else:
        v = tl.load(membrane + place, inside, 0.0)
    before = ()
    inputs = ()
    for t in tl.static_range(T):
        current, x_t = _current(x, residual, scales, shifts, place, inside, t, size, scales.dtype)
        u = decay * v + current
        fires = u - threshold >= 0
        v = tl.where(fires, v_reset, u) if HARD else tl.where(fires, u - threshold, u)
        before = before + (u,)
        inputs = inputs + (x_t,)
    if mean is not None:
        means = _of_channel(mean, row, value, rows, values, BY_ROW)
    if shares is not None:
        channels = rows if BY_ROW else values
        share = _of_channel(shares, row, value, rows, values, BY_ROW)
        share_of_x = _of_channel(shares + channels, row, value, rows, values, BY_ROW)
    total = tl.zeros((ROWS, VALUES), scales.dtype)
    product = tl.zeros((ROWS, VALUES), scales.dtype)
    to_v = tl.zeros((ROWS, VALUES), scales.dtype) if ahead is None else tl.load(ahead + place, inside, 0.0)
    for step in tl.static_range(T):
        t = T - 1 - step
        to_spikes = tl.load(grad + t * size + place, inside, 0.0).to(scales.dtype)
        u = before[T - 1 - step]
        x_t = inputs[T - 1 - step]
        if not DETACH_RESET:
            to_spikes += to_v * ((v_reset - u) if HARD else -threshold)
        survives = tl.where(u - threshold >= 0, 0.0, to_v) if HARD else to_v
        to_u = survives + to_spikes * _slope(u - threshold, FORM, WIDTH, HEIGHT, END)
        to_v = tl.zeros((ROWS, VALUES), scales.dtype) if DETACH_MEMBRANE else decay * to_u
        if to_current is not None:
            tl.store(to_current + t * size + place, to_u.to(x_t.dtype), inside)
        if sums is not None:
            total += to_u
            product += to_u * (x_t.to(scales.dtype) - means)
        if to_x is not None:
            through = to_u - share - share_of_x * (x_t.to(scales.dtype) - means)
            tl.store(to_x + t * size + place, (scales * through).to(x_t.dtype), inside)
    if behind is not None:
        tl.store(behind + place, to_v, inside)
    if sums is not None:
        total = tl.where(inside, total, 0.0)
        product = tl.where(inside, product, 0.0)
        across = tl.cdiv(values, VALUES)
        if BY_ROW:
            part = (tl.program_id(0) % across) * rows + row
            tl.store(sums + part, tl.sum(total, 1), row < rows)
            tl.store(sums + across * rows + part, tl.sum(product, 1), row < rows)
        else:
            part = (tl.program_id(0) // across) * values + value
            tl.store(sums + part, tl.sum(total, 0), value < values)
            tl.store(sums + tl.cdiv(rows, ROWS) * values + part, tl.sum(product, 0), value < values)


@triton.jit
def respond_kernel(
    x, scale, shift, residual, membrane, v_init, spikes, answer, rows, values, decay, threshold, v_reset,
    HARD: tl.constexpr, FORM: tl.constexpr, WIDTH: tl.constexpr, HEIGHT: tl.constexpr, END: tl.constexpr,
    M: tl.constexpr, LENGTH: tl.constexpr, DETACH_RESET: tl.constexpr,
    BY_ROW: tl.constexpr, ROWS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row, value = _place(rows, values, ROWS, VALUES)
    inside = (row < rows)[:, None] & (value < values)[None, :]
    place = row.to(tl.int64)[:, None] * values + value[None, :]
    size = tl.cast(rows, tl.int64) * values
    scales = _of_channel(scale, row, value, rows, values, BY_ROW)
    shifts = _of_channel(shift, row, value, rows, values, BY_ROW)
    v = tl.full((ROWS, VALUES), 0.0, scales.dtype) + v_init
    for segment in tl.static_range(M):
        to_v = tl.zeros((ROWS, VALUES), scales.dtype)
        total = tl.zeros((ROWS, VALUES), scales.dtype)
        for step in tl.static_range(LENGTH):
            t = segment * LENGTH + step
            current, x_t = _current(x, residual, scales, shifts, place, inside, t, size, scales.dtype)
            u = decay * v + current
            fires = u - threshold >= 0
            slope = _slope(u - threshold, FORM, WIDTH, HEIGHT, END)
            to_u = 1.0 + decay * to_v
            total += slope * to_u
            if HARD:
                survives = tl.where(fires, 0.0, 1.0)
                v = tl.where(fires, v_reset, u)
                if not DETACH_RESET:
                    survives += (v_reset - u) * slope
                to_v = survives * to_u
            else:
                v = tl.where(fires, u - threshold, u)
                to_v = to_u if DETACH_RESET else (1.0 - threshold * slope) * to_u
            tl.store(spikes + t * size + place, fires.to(scales.dtype).to(x_t.dtype), inside)
        tl.store(answer + segment * size + place, total / LENGTH, inside)


@triton.jit
def unpack_kernel(bits, spikes, size, first, T: tl.constexpr, TILE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = place < size
    byte = tl.load(bits + place, inside, 0).to(tl.int32) >> first
    for t in tl.static_range(T):
        tl.store(spikes + t * size + place, ((byte >> t) & 1).to(tl.float32).to(spikes.dtype.element_ty), inside)
