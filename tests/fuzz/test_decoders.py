"""Each decoder of foreign bytes, fuzzed for a while: what is found once is in the corpus.

By hand for longer, with new inputs put into the directory NEW:
``python tests/fuzz/run.py TARGET NEW tests/fuzz/corpus/TARGET -max_total_time=600``
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from targets import TARGETS

HERE = Path(__file__).parent
# The targets make themselves an emulator as the unit tests do.
sys.path.append(str(HERE.parent / "unit"))

RUNS = {"owners": 2000, "attributes": 6000, "listener": 3000, "config": 2000}
"""How many inputs are tried, where it is not 20,000: each takes a second or two."""


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus(target: str) -> None:
    for path in sorted((HERE / "corpus" / target).iterdir()):
        TARGETS[target](path.read_bytes())


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no package for this Python"
)
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_is_more_than_a_decoder_can_take(target: str, tmp_path: Path) -> None:
    options = [
        f"-runs={RUNS.get(target, 20000)}",
        "-seed=1",
        "-max_len=2048",
        "-timeout=20",
        "-rss_limit_mb=1024",
        f"-artifact_prefix={tmp_path}/",
    ]
    corpus = HERE / "corpus" / target
    command = [sys.executable, f"{HERE}/run.py", target, *options, str(tmp_path), str(corpus)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "Done " in done.stderr, done.stderr[-5000:]
