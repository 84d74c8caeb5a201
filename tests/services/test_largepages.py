"""Memory in large pages: what is asked of the kernel, and what it does where it can."""

from __future__ import annotations

import mmap
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from shaken_plugin.switch import largepages
from shaken_plugin.switch.largepages import MADV_COLLAPSE, gather

SIZE: Final = 2_097_152

CHILD: Final = """
kept = [object() for _ in range(500_000)]
from pathlib import Path
def huge():
    return int(Path("/proc/self/smaps_rollup").read_text().partition("AnonHugePages:")[2].split()[0]) * 1024
before = huge()
from shaken_plugin.switch.largepages import gather
print(gather(), huge() - before, all(type(one) is object for one in kept))
"""


def can() -> bool:
    """Whether this kernel gathers pages of our own when it is asked, and nobody forbids it."""
    system = Path("/sys/kernel/mm/transparent_hugepage")
    if not system.exists() or "[never]" in (system / "enabled").read_text():
        return False
    with mmap.mmap(-1, 4 * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:
        own.write(b"x" * 4 * SIZE)
        try:
            own.madvise(MADV_COLLAPSE, 0, 4 * SIZE)
        except OSError:
            return False
    return True


class Asked(list[int]):
    """Stands for a question to the kernel, and says no."""

    def __call__(self, _libc: object, begin: int, _size: int) -> bool:
        self.append(begin)
        return False


def test_what_a_process_keeps_lies_in_large_pages_where_the_kernel_can() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=60)
    gathered, grown, intact = done.stdout.split()
    assert intact == "True"
    assert int(gathered) % SIZE == 0
    assert int(grown) >= int(gathered) * 0.9  # some may have fallen apart meanwhile
    assert int(gathered) > 0 or not can()


def test_the_operator_may_forbid_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hpage_pmd_size").write_text("2097152\n")
    (tmp_path / "enabled").write_text("always madvise [never]\n")
    asked = Asked()
    monkeypatch.setattr(largepages, "_SYSTEM", tmp_path)
    monkeypatch.setattr(largepages, "_is_used", asked)
    assert gather() == 0
    assert not asked
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    assert gather() == 0
    assert asked


def test_a_kernel_without_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largepages, "_SYSTEM", tmp_path / "missing")
    assert gather() == 0


def test_only_private_memory_of_no_file_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "00400000-00a00000 rw-p 00000000 08:01 77 /usr/lib/a.so\n"
        "01100000-01800000 rw-p 00000000 00:00 0 [heap]\n"
        "02000000-02400000 rw-s 00000000 00:01 5 /dev/zero (deleted)\n"
        "03000000-03400000 r--p 00000000 00:00 0 \n"
        "04000000-04001000 ---p 00000000 00:00 0 \n"
        "04001000-04801000 rw-p 00000000 00:00 0 \n"
        "05000000-05600000 rw-p 00000000 00:00 0 \n"
        "06000000-06100000 rw-p 00000000 00:00 0 \n"
        "07000000-07400000 rw-p 00000000 00:00 0 [stack]\n"
    )
    asked = Asked()
    monkeypatch.setattr(largepages, "_MAPS", maps)
    monkeypatch.setattr(largepages, "_SYSTEM", tmp_path)
    (tmp_path / "hpage_pmd_size").write_text(f"{SIZE}\n")
    (tmp_path / "enabled").write_text("[always]\n")
    monkeypatch.setattr(largepages, "_is_used", asked)
    gather()
    assert [f"{begin:x}" for begin in asked] == ["1200000", "1400000", "1600000", "5000000", "5200000", "5400000"]


def test_what_is_mostly_not_in_memory_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large page there would take the memory that nobody has used yet."""
    collapsed = Asked()
    with mmap.mmap(-1, 8 * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as own:
        own.madvise(mmap.MADV_NOHUGEPAGE)
        text = Path("/proc/self/maps").read_text()
        owns = [line for line in text.splitlines() if _length(line) >= 8 * SIZE and re.search(r" rw-p .* 0 *$", line)]
        assert owns
        (tmp_path / "maps").write_text("\n".join(owns))
        monkeypatch.setattr(largepages, "_MAPS", tmp_path / "maps")
        monkeypatch.setattr(largepages, "_collapse", collapsed)
        gather()
        before = len(collapsed)
        own.write(b"x" * 8 * SIZE)
        gather()
    assert len(collapsed) >= 2 * before + (7 if can() else 0)


def _length(line: str) -> int:
    begin, end = (int(text, 16) for text in line.split(maxsplit=1)[0].split("-"))
    return end - begin
