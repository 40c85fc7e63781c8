"""The pictures of the README are taken from the program, by a script that still works."""

import html
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from take_pictures import PICTURES  # type: ignore[import-not-found]

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SHOWN = {
    "conversation": ("Compare rsync", "☑ dump the database first", "/copy 1", "more below"),
    "draft": (r"\(p = 0.015\)", "And for two disks?", "left after it and the reply"),
    "library": ("hits in 3 chats", "Moving photos off the laptop", "open at the hit"),
    "themes": ("driftwood", "current · dark", "keep it"),
}


def text_of(svg: str) -> str:
    ElementTree.fromstring(svg)
    texts = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    return html.unescape("".join(texts)).replace("\xa0", " ")


def test_the_script_takes_every_picture_from_the_program(tmp_path: Path) -> None:
    script = [sys.executable, str(HERE / "take_pictures.py"), str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.stem for path in tmp_path.glob("*.svg")} == PICTURES.keys() == SHOWN.keys()
    for name, wanted in SHOWN.items():
        text = text_of((tmp_path / f"{name}.svg").read_text(encoding="utf-8"))
        assert [part for part in wanted if part not in text] == []
        assert str(tmp_path) not in text


def test_the_readme_shows_the_pictures_that_there_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(tests/ui/pictures/([a-z]+)\.svg\)", readme)
    assert sorted(shown) == sorted(path.stem for path in (HERE / "pictures").glob("*.svg"))
    assert sorted(shown) == sorted(PICTURES)
    assert readme.index("tests/ui/pictures/") < readme.index("\n## ")
