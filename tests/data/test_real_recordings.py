"""Recordings of real cameras, where $SPIKEDISTILL_DATA has them: what independent readers found in them, in `reference.json`."""

import json
from pathlib import Path

import numpy as np
import pytest

from spikedistill.data import read_recording
from spikedistill.errors import UserError

pytestmark = pytest.mark.data
# Whose times are beyond those that the file itself says.
WRONG_TIMES = {("expelliarmus_evt3_sample.raw", "expelliarmus"), ("expelliarmus_evt3_sample.raw", "shipped .npy")}


@pytest.fixture(scope="module")
def samples(data_root: Path) -> Path:
    folder = data_root / "event_samples"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder


def test_every_recording_holds_what_other_readers_found(samples: Path) -> None:
    compared = 0
    for name, readers in json.loads((samples / "reference.json").read_text()).items():
        reports = {reader: report for reader, report in readers.items() if isinstance(report, dict)}
        if not reports:
            continue
        if name.endswith(".aedat4"):
            pytest.importorskip("aedat")
        found = read_recording(samples / name)
        assert (np.diff(found.time) >= 0).all()
        for reader, report in reports.items():
            assert len(found) == report["events"], (name, reader)
            for field in "xyp":
                values = found.polarity if field == "p" else getattr(found, field)
                if f"sum_{field}" in report:
                    assert int(values.sum(dtype=np.int64)) == report[f"sum_{field}"], (name, reader, field)
                    ends = report.get(field, report["p_values"])
                    assert [int(values.min()), int(values.max())] == ends, (name, reader, field)
            if (name, reader) not in WRONG_TIMES:
                assert int(found.time[0]) == report["t_first"], (name, reader)
                assert abs(int(found.time[-1]) - report["t_last"]) <= 10, (name, reader)
                passed = int((found.time - found.time[0]).sum())
                assert abs(passed - report["sum_t_minus_first"]) <= 10 * len(found), (name, reader)
                if not name.startswith("expelliarmus_evt3"):
                    assert passed == report["sum_t_minus_first"], (name, reader)
            compared += 1
    assert compared >= 12


def test_headers_without_events_and_other_files(samples: Path) -> None:
    header = read_recording(samples / "tonic_sample_aedat_header.aedat")
    assert (len(header), header.size) == (0, (260, 346))
    for name, message in {
        "mibblez_header_test_240.aedat": r"byte 303893: ends after 4 bytes of a record of 8",
        "faery_generic.es": r"has version 2 and type 0 of events, expected 2 and 1",
        "aestream_sample.csv": r"begins with b'0,0,0,0', which no known format does",
    }.items():
        with pytest.raises(UserError, match=message):
            read_recording(samples / name)
