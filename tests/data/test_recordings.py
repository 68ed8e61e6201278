"""Files of event cameras, written here from the specification of each format, and read back."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_files import (
    AEDAT3_HEADER,
    EVT2_HEADER,
    EVT3_HEADER,
    WRITERS,
    Event,
    aedat2,
    arrays,
    atis,
    dat,
    event_stream,
    packet,
    write,
)

from spikedistill.data import Recording, read_recording
from spikedistill.data.recordings import recording
from spikedistill.errors import UserError


def events_of(recording: Recording) -> list[Event]:
    fields = (getattr(recording, name).tolist() for name in ("x", "y", "polarity", "time"))
    return list(zip(*fields, strict=True))


@pytest.fixture
def piece(monkeypatch: pytest.MonkeyPatch) -> int:
    """Decode as few events at a time, so that short files have several pieces."""
    monkeypatch.setattr(recording, "PIECE", 50)
    return 50


def fault_of(path: Path) -> str | None:
    """What is wrong with a file, or None."""
    try:
        read_recording(path)
    except UserError as error:
        return str(error)
    return None


SIZES = {
    "a.bin": None,
    "dvs.aedat": (128, 128),
    "davis.aedat": (180, 240),
    "3.aedat": (128, 128),
    "a.dat": (240, 304),
    "2.raw": (480, 640),
    "3.raw": (720, 1280),
    "a.es": (240, 304),
}
some_events = st.lists(
    st.tuples(st.integers(0, 127), st.integers(0, 127), st.integers(0, 1), st.integers(0, 5000)), max_size=40
)


def test_a_bin_file_may_begin_with_the_marks_of_other_formats(tmp_path: Path) -> None:
    for x, y in ((0x25, 0x20), (0x50, 0x4B)):  # "% " of Prophesee, "PK" of NumPy's archives
        events = [(x, y, 1, 5), (1, 2, 0, 9)]
        assert events_of(read_recording(write(tmp_path / "a.bin", WRITERS["a.bin"](events)))) == events


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=30)
@given(events=some_events)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, name: str, events: list[Event]) -> None:
    path, times = tmp_path_factory.mktemp("events") / name, np.cumsum([t for *_, t in events]).tolist()
    events = [(x, y, p, time) for (x, y, p, _), time in zip(events, times, strict=True)]
    content = WRITERS[name](events)
    if not content:
        return  # a file of no bytes is refused
    found = read_recording(write(path, content))
    assert events_of(found) == events
    assert found.size == SIZES[name]
    assert (found.x.dtype, found.y.dtype, found.polarity.dtype, found.time.dtype) == (
        np.uint16,
        np.uint16,
        np.uint8,
        np.int64,
    )


@pytest.mark.parametrize("name", WRITERS)
def test_long_files_are_read_in_pieces(tmp_path: Path, piece: int, name: str) -> None:
    dice, N = np.random.default_rng(0), piece * 9 + 12
    fields = dice.integers(0, [[128], [128], [2], [90]], (4, N))
    fields[3] = np.cumsum(fields[3])
    events = [tuple(event) for event in fields.T.tolist()]
    assert events_of(read_recording(write(tmp_path / name, WRITERS[name](events)))) == events


def test_arrays_of_events(tmp_path: Path) -> None:
    events = [(3, 4, 1, 10), (5, 6, 0, 12)]
    assert events_of(read_recording(arrays(tmp_path / "a.npz", events))) == events
    signs = arrays(tmp_path / "b.npz", events, p=np.array([1.0, -1.0]))
    assert events_of(read_recording(signs)) == events
    assert events_of(read_recording(arrays(tmp_path / "c.npz", events, p=np.array([True, False])))) == events


# What formats say beyond events.


def test_overflows_of_the_atis_clock_add_up_over_pieces(tmp_path: Path, piece: int) -> None:
    mark = (0, 240, 0, 0)
    events = [(1, 2, 0, 8000), mark, *[(3, 4, 1, 10)] * piece, mark, (5, 6, 1, 7)]
    found = read_recording(write(tmp_path / "a.bin", atis(events)))
    assert events_of(found) == [(1, 2, 0, 8000), *[(3, 4, 1, 8192 + 10)] * piece, (5, 6, 1, 2 * 8192 + 7)]


def test_aedat2_leaves_out_images_motion_and_triggers(tmp_path: Path) -> None:
    content = aedat2([(3, 4, 1, 10)], "eu.seebetter.ini.chips.davis.Davis346red")
    others = [(1 << 31 | 3 << 12, 11), (1 << 10 | 3 << 12, 12)]
    found = read_recording(
        write(tmp_path / "a.aedat", content + b"".join(struct.pack(">II", *word) for word in others))
    )
    assert events_of(found) == [(3, 4, 1, 10)]
    assert found.size == (260, 346)
    external = aedat2([(3, 4, 1, 10)]) + struct.pack(">II", 1 << 15, 11)
    assert events_of(read_recording(write(tmp_path / "b.aedat", external))) == [(3, 4, 1, 10)]


def test_aedat2_events_may_begin_with_the_byte_of_the_header(tmp_path: Path) -> None:
    # the row 140 puts 0x23, a #, in front; its time has a byte of no text
    event = (100, 140, 1, 5)
    davis = "eu.seebetter.ini.chips.davis.DAVIS240C"
    assert aedat2([event], davis)[-8:-7] == b"#"
    assert events_of(read_recording(write(tmp_path / "a.aedat", aedat2([event], davis)))) == [event]
    # whatever follows the last line of the header is an event, though it looks like a line
    text = b"#AP    \n"
    ended = aedat2([], davis, end="#End Of ASCII Header\r\n") + text
    assert len(read_recording(write(tmp_path / "b.aedat", ended))) == 1


def test_aedat2_needs_a_camera(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.aedat",
        aedat2([(3, 4, 1, 10)]).replace(b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n", b""),
    )
    with pytest.raises(UserError, match=r"a\.aedat: names no camera, expected one of DVS128, .*; pass camera="):
        read_recording(path)
    assert events_of(read_recording(path, camera="DVS128")) == [(3, 4, 1, 10)]
    unknown = write(tmp_path / "b.aedat", aedat2([(3, 4, 1, 10)], "some.Cochlea"))
    with pytest.raises(UserError, match=r"names the camera 'some\.Cochlea', expected one of DVS128"):
        read_recording(unknown)


@pytest.mark.parametrize("name", ["dvs.aedat", "a.dat"])
def test_clocks_of_32_bits_go_on_where_they_wrap(tmp_path: Path, name: str) -> None:
    times = [2**32 - 5, 2**32 - 1, 3, 2**31, 2**32 - 1, 0, 7]
    found = read_recording(write(tmp_path / name, WRITERS[name]([(1, 1, 1, t) for t in times])))
    turns = [0, 0, 1, 1, 1, 2, 2]
    assert found.time.tolist() == [t + turn * 2**32 for t, turn in zip(times, turns, strict=True)]
    # an older camera's small step back is none
    assert read_recording(write(tmp_path / name, WRITERS[name]([(1, 1, 1, 9), (1, 1, 1, 8)]))).time.tolist() == [9, 8]


def test_aedat31_counts_its_overflows_and_leaves_out_what_is_no_valid_light(tmp_path: Path) -> None:
    content = (
        AEDAT3_HEADER
        + packet([(1, 2, 1, 100)])
        + packet([(9, 9, 1, 100)], kind=0)
        + packet([(9, 9, 1, 100)], valid=0)
        + packet([(3, 4, 0, 5), (5, 6, 1, 6)], overflows=2)
        + packet([])
    )
    found = events_of(read_recording(write(tmp_path / "a.aedat", content)))
    assert found == [(1, 2, 1, 100), (3, 4, 0, 2 * 2**31 + 5), (5, 6, 1, 2 * 2**31 + 6)]


def test_dat_of_version_1_has_fewer_bits(tmp_path: Path) -> None:
    # x in 9 bits, y in 8, then polarity
    content = b"% Version 1\n" + bytes([0, 8]) + struct.pack("<II", 77, 1 << 17 | 200 << 9 | 300)
    assert events_of(read_recording(write(tmp_path / "a.dat", content))) == [(300, 200, 1, 77)]


def test_evt2_events_before_the_first_time_are_left_out_and_the_clock_wraps(tmp_path: Path) -> None:
    light = 1 << 28 | 5 << 22 | 7 << 11 | 8
    words = [light, 0x8 << 28 | 0xFFFFFFF, light, 0xA << 28, 0xE << 28, 0xF << 28, 0x8 << 28 | 1, light]
    found = read_recording(write(tmp_path / "a.raw", EVT2_HEADER + struct.pack("<8I", *words)))
    assert events_of(found) == [(7, 8, 1, 0xFFFFFFF << 6 | 5), (7, 8, 1, (2**28 + 1) << 6 | 5)]


def test_evt3_vectors_by_hand(tmp_path: Path) -> None:
    words = [
        0x2 << 12 | 9,  # before any time: left out
        0x8 << 12 | 0xFFF,
        0x6 << 12 | 100,
        0x0 << 12 | 1 << 11 | 50,  # the second camera of a pair: row 50 all the same
        0x4 << 12 | 0b1,  # a vector before any place: left out
        0x3 << 12 | 1 << 11 | 200,
        0x4 << 12 | 0b100000000011,  # 200, 201, 211
        0x5 << 12 | 0xF00 | 0b10000001,  # 212, 219; the four bits above eight mean nothing
        0x2 << 12 | 300,  # one event does not move vectors
        0x5 << 12 | 0b1,  # 220
        0x7 << 12, 0xA << 12, 0xE << 12, 0xF << 12,  # no events
        0x8 << 12 | 0,  # the clock of 24 bits wraps
        0x6 << 12 | 3,
        0x2 << 12 | 1 << 11 | 301,
    ]  # fmt: skip
    found = read_recording(write(tmp_path / "a.raw", EVT3_HEADER + struct.pack(f"<{len(words)}H", *words)))
    time = 0xFFF << 12 | 100
    row = [(x, 50, p, time) for x, p in ((200, 1), (201, 1), (211, 1), (212, 1), (219, 1), (300, 0), (220, 1))]
    assert events_of(found) == [*row, (301, 50, 1, 2**24 + 3)]


def test_evt3_goes_on_over_pieces(tmp_path: Path, piece: int) -> None:
    # time, row and place are said once, and vectors move on through two pieces
    said = [0x8 << 12 | 5, 0x6 << 12 | 6, 7, 0x3 << 12 | 1 << 11]
    words = said + [0xE << 12] * (piece - 6) + [0x4 << 12 | 1] * 4
    header = b"% evt 3.0\n"
    found = read_recording(write(tmp_path / "a.raw", header + struct.pack(f"<{len(words)}H", *words)))
    assert events_of(found) == [(12 * k, 7, 1, 5 << 12 | 6) for k in range(4)]
    assert found.size is None


def test_event_stream_resets_are_ignored(tmp_path: Path) -> None:
    content = event_stream([(1, 2, 1, 300)])
    at = len(content) - 5
    found = read_recording(write(tmp_path / "a.es", content[:at] + b"\xfe\xfe" + content[at:] + b"\xff"))
    assert events_of(found) == [(1, 2, 1, 300)]


# What is wrong is named, with file and byte.


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_named_or_ends_at_a_record(tmp_path: Path, name: str) -> None:
    events = [(k % 128, k % 100, k % 2, 170 * k) for k in range(80)]
    content, whole = WRITERS[name](events), 0
    for length in np.random.default_rng(1).permutation(len(content))[:200].tolist():
        path = write(tmp_path / name, content[:length])
        fault = fault_of(path)
        if fault is None:
            found = events_of(read_recording(path))
            assert found == events[: len(found)]
            whole += 1
        else:
            assert fault.startswith(f"{path}: ")
            # inside the header, which says the format, or else with the place
            assert "byte" in fault or length < len(WRITERS[name]([]))
    assert 1 <= whole < 200


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.raw", b"", "byte 0: is empty"),
        ("a.txt", b"0,0,0,0\n", "begins with b'0,0,0,0', which no known format does; known are: 40-bit events"),
        ("a.aedat", b"#!AER-DAT1.0\r\n", "which no known format does"),
        ("a.aedat", AEDAT3_HEADER.replace(b"#!END-HEADER\r\n", b""), "the header does not end with #!END-HEADER"),
        ("a.aedat", AEDAT3_HEADER.replace(b"RAW", b"XOR"), "has the format 'XOR', expected RAW"),
        ("a.aedat", AEDAT3_HEADER + packet([(1, 2, 1, 3)])[:-1], "a packet of 1 events ends 1 bytes behind the file"),
        ("a.aedat", AEDAT3_HEADER + packet([(1, 2, 1, 3)])[:20], "ends after 20 of the 28 bytes that a packet begins with"),
        ("a.aedat", AEDAT3_HEADER + bytes([1, 0]) + b"\xff" * 26, "events of -1 bytes: the file is damaged"),
        ("a.dat", b"% Version 2\n", "ends before the type and size of events"),
        ("a.dat", dat([], kind=0x0E), "has events of type 0x0e and 8 bytes, expected 0x00 or 0x0c and 8"),
        ("a.raw", b"% evt 2.1\n" + bytes(8), "names none of the formats DAT, EVT 2.0 and EVT 3.0"),
        ("a.raw", EVT2_HEADER + struct.pack("<II", 0x8 << 28, 0x5 << 28), "byte 33: a word of the type 0x5 has no meaning"),
        ("a.raw", EVT3_HEADER + struct.pack("<HH", 0x8 << 12, 0xB << 12), "a word of the type 0xb has no meaning"),
        ("a.raw", b"% evt 3.0\n% endianness=big\n", "has the highest byte first"),
        ("a.es", event_stream([], kind=0), "has version 2 and type 0 of events, expected 2 and 1"),
        ("a.es", event_stream([])[:18], "byte 18: ends inside the header"),
        ("a.npz", b"PK\3\4 no archive", "is no readable .npz file"),
        ("a.dat", dat([(1, 2, 1, 3), (304, 2, 1, 4)]), "1 of 2 events lie outside the sensor of 240x304"),
        ("a.es", event_stream([(1, -1, 1, 3)]), "the first is number 0 at x=1, y=65535"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        read_recording(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arrays_given", "message"),
    [
        ({"t": np.arange(3)}, "has {'t': 3, 'x': 2, 'y': 2, 'p': 2} values, expected as many of each"),
        ({"x": np.array([[1, 2]])}, "'x' has shape [1, 2], expected [N]"),
        ({"x": np.array([1.5, 2])}, "'x' (float64) holds values that are no whole numbers"),
        ({"x": np.array([np.nan, 2])}, "'x' (float64) holds values that are no whole numbers"),
        ({"y": np.array([0, -1])}, "'y' holds -1 at event 1, expected 0 to 65535"),
        ({"p": np.array([0, 2])}, "'p' holds 2 at event 1, expected 0 to 1"),
    ],
)
def test_arrays_that_are_no_events_are_named(tmp_path: Path, arrays_given: dict[str, np.ndarray], message: str) -> None:
    path = arrays(tmp_path / "a.npz", [(3, 4, 1, 10), (5, 6, 0, 12)], **arrays_given)
    with pytest.raises(UserError) as error:
        read_recording(path)
    assert message in str(error.value)


def test_arrays_that_are_missing_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.arange(2), frames=np.arange(2))
    with pytest.raises(UserError, match=r"a\.npz: holds t, frames, not x, y, p; write it with numpy\.savez"):
        read_recording(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError, match=r"b\.npz is missing"):
        read_recording(tmp_path / "b.npz")


def test_a_known_sensor_is_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bin", atis([(1, 2, 1, 3), (40, 2, 1, 4)]))
    assert len(read_recording(path)) == 2
    with pytest.raises(UserError, match="1 of 2 events lie outside the sensor of 34x34"):
        read_recording(path, size=(34, 34))


def test_aedat4_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aedat", None)
    path = write(tmp_path / "a.aedat4", b"#!AER-DAT4.0\r\n")
    with pytest.raises(ModuleNotFoundError, match=r"is AEDAT 4: pip install 'spikedistill\[aedat4\]'"):
        read_recording(path)
