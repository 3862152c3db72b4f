from pathlib import Path

import numpy as np
import pytest

from models.common.errors import HalftoneError
from tests.training.samples import class_folders, picture
from training.data.load import load_data

ROWS = "path,label\n" + "".join(f"{name}/{n:03d}.png,{name}\n" for name in ("cat", "dog") for n in range(5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return class_folders(tmp_path, {"cat": 5, "dog": 5})


def table(folder: Path, text: str | bytes) -> str:
    file = folder / "list.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(file)


def test_rows_without_a_split_are_split_by_class(folder):
    data = load_data(table(folder, ROWS))
    assert data.train.labels == ("cat", "dog")
    assert np.bincount(data.train.targets).tolist() == [4, 4]
    assert np.bincount(data.val.targets).tolist() == [1, 1]
    assert not data.own_split


def test_the_split_column_decides(folder):
    text = "path,label,split\ndog/000.png,b,train\ncat/000.png,a,train\ncat/001.png,a,val\ndog/001.png,b,val\n"
    data = load_data(table(folder, text))
    assert data.train.targets.tolist() == [1, 0]
    assert data.val.targets.tolist() == [0, 1]
    assert data.own_split
    assert np.array_equal(data.train.read(1), picture(0))


def test_spreadsheets_write_semicolons_a_byte_order_mark_and_capital_headings(folder):
    text = "\ufeffLabel;Path\n" + "".join(f"{name};{name}/{n:03d}.png\n" for name in ("cat", "dog") for n in range(5))
    assert len(load_data(table(folder, text.replace("\n", "\r\n"))).train) == 8


def test_absolute_paths_and_quoted_commas(folder):
    (folder / "cat" / "a,b.png").write_bytes((folder / "cat" / "000.png").read_bytes())
    data = load_data(table(folder, ROWS + f'"{folder}/cat/a,b.png","cat"\n'))
    assert len(data.train) + len(data.val) == 11


def test_lines_end_where_csv_says(folder):
    odd = "cat/a\u2028b.png"
    (folder / odd).write_bytes((folder / "cat" / "000.png").read_bytes())
    (folder / "cat" / "a\nb.png").write_bytes((folder / "cat" / "000.png").read_bytes())
    data = load_data(table(folder, ROWS + f'{odd},cat\n"cat/a\nb.png",cat\n'))
    found = {part.name(index) for part in (data.train, data.val) for index in range(len(part))}
    assert {odd, "cat/a\nb.png"} <= found


@pytest.mark.parametrize("spelled", ["cat/000.png", "./cat/000.png", "{folder}/cat/000.png", "link.png"])
def test_the_same_picture_twice_counts_once(folder, spelled):
    (folder / "link.png").symlink_to("cat/000.png")
    data = load_data(table(folder, ROWS + spelled.format(folder=folder) + ",cat\n"))
    assert len(data.train) + len(data.val) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line must name the columns"),
        ("cat/000.png,cat\n", "its first line must name the columns, path,label"),
        ("path,label\n", "no rows"),
        ("path,label\ncat/000.png,\n", "line 2: the label is missing"),
        ("path,label\n,cat\n", "line 2: the path is missing"),
        ("path,label\ncat/000.png\n", "line 2: the label is missing"),
        ("path,label\ncat/000.png,cat\n", "only one class"),
        (ROWS + "cat/nowhere.png,cat\n", r"lists 1 files that do not exist, such as cat/nowhere.png in line 12"),
        (ROWS.replace("003.png,cat", "003.png,Cat"), "the classes 'Cat' and 'cat', which differ"),
        (ROWS + "cat/000.png,dog\n", "lines 2 and 12: cat/000.png is labelled 'cat' and 'dog'"),
        ("path,label,split\ncat/000.png,cat,train\ndog/000.png,dog,later\n", "line 3: the split is 'later'"),
        ("path,label,split\ncat/000.png,cat,train\ndog/000.png,dog,train\n", "some rows train and some val"),
        (
            "path,label,split\ncat/000.png,cat,train\ndog/000.png,dog,val\n",
            "has the class 'dog' in val but not in train",
        ),
        (
            "path,label,split\ncat/000.png,cat,train\ndog/000.png,dog,train\ncat/000.png,cat,val\n",
            "in both train and val",
        ),
        (
            "path,label,split\ncat/000.png,cat,train\ndog/000.png,dog,train\n./cat/000.png,cat,val\n",
            "lines 2 and 4: ./cat/000.png is in both train and val",
        ),
        (ROWS + "dog/../cat/000.png,dog\n", "lines 2 and 12: .* is labelled 'cat' and 'dog'"),
        (
            ROWS.replace("png,cat", "png,cats/tom"),
            "line 2: the label 'cats/tom' can't be .*, because it contains /: rename",
        ),
        (ROWS.replace("png,dog", "png,do\\g"), r"line 7: the label .*, because it contains \\: rename"),
        (ROWS.replace("png,dog", "png,.."), r"line 7: the label '\.\.' .* begins with a dot"),
        (ROWS.replace("png,dog", "png,do\tg"), "line 7: .* a control character or a line end"),
        (
            ROWS + '"cat/004.png,cat\n' + "x" * 140_000,
            "line 13: this is not CSV .*: look for an unmatched quotation mark",
        ),
        (ROWS + "cat\0.png,cat\n", "line 12: the path .* contains a zero byte"),
        (b"path,label\ncat/000.png,caf\xe9\n", "not UTF-8"),
    ],
)
def test_unusable_tables(folder, text, message):
    with pytest.raises(HalftoneError, match=message):
        load_data(table(folder, text))


def test_no_such_table(tmp_path):
    with pytest.raises(HalftoneError, match="can't be read"):
        load_data(str(tmp_path / "nowhere.csv"))
