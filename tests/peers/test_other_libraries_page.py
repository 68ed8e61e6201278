"""The page on networks of other libraries, run from top to bottom with these libraries."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[2] / "docs" / "your_own" / "other_libraries.md"
CODE = {
    peer: re.findall(rf"^<!-- test: {peer} -->\n```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for peer in ("spikingjelly", "snntorch")
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("peer", CODE)
def test_the_documented_code_runs_on_the_real_library(peer, tmp_path, monkeypatch, capsys):
    pytest.importorskip(peer)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "__main__"}
    for code in CODE[peer]:
        exec(compile(code, str(PAGE), "exec"), names)
    if peer == "snntorch":
        assert len(CODE[peer]) == 2
        assert len(names["found"]["last"]["ensemble"]) == 5
        assert names["out"].exit_times.min() >= 2
        return
    assert len(CODE[peer]) == 4
    # a stranger's network, evaluated, reported and exited early
    found, out = names["found"], names["out"]
    assert len(found["last"]["ensemble"]) == 4
    assert found["deployment"]["energy"]["total_pj"]
    assert found["last"]["firing_rates"][0]["layer"] == "2"
    page = (tmp_path / "theirs" / "report.html").read_text()
    assert "My SpikingJelly network" in page
    assert 'id="deployment"' in page
    assert 'id="firing"' in page
    logits = names["model"](names["images"], timesteps=4)[:, 150:].double()
    means = torch.stack([logits[:t, n].mean(0) for n, t in enumerate(out.exit_times.tolist())])
    torch.testing.assert_close(out.logits, means, rtol=0, atol=1e-5)
