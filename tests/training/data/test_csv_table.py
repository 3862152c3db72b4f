from pathlib import Path

import numpy as np
import pytest

from models.common.errors import HalftoneError
from tests.commands import run
from tests.training.samples import class_folders, picture
from training.config.columns import Columns
from training.data.load import load_data

KEEP = ("1", "0", "", "yes")
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
        ("cat/nowhere.png,cat\n", "its first line must name the columns, path,label"),
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


NAMES = [f"{name}/{n:03d}.png" for name in ("cat", "dog") for n in range(5)]


def rows(header: str, line: str) -> str:
    """A table with a line per picture: `{path}`, `{stem}`, `{label}`, `{row}`, `{part}`, `{truth}`, `{is_cat}`."""
    values = [
        {
            "path": path, "stem": path.removesuffix(".png"), "label": path[:3], "row": row,
            "part": "valid" if row % 5 == 0 else "training", "truth": row % 5 == 0,
            "is_cat": int(path[:3] == "cat"), "is_dog": int(path[:3] == "dog"), "back": path.replace("/", "\\"),
        }
        for row, path in enumerate(NAMES)
    ]  # fmt: skip
    return "\n".join([header, *(line.format(**each) for each in values)]) + "\n"


@pytest.mark.parametrize(
    ("header", "line"),
    [
        (",path,label", "{row},{path},{label}"),
        ("filename,class", "{path},{label}"),
        ("id,breed", "{stem},{label}"),
        ("image,cat,dog", "{stem},{is_cat}.0,{is_dog}.0"),
        ("Unnamed: 0,File Path,Label,width", "{row},{path},{label},12"),
        ("path,label", "{back},{label}"),
        ("class id,filepaths,labels", "{is_cat},{path},{label}"),
    ],
)
def test_common_forms_of_tables(folder, header, line):
    data = load_data(table(folder, rows(header, line)))
    assert data.train.labels == ("cat", "dog")
    assert (len(data.train), len(data.val), data.own_split) == (8, 2, False)
    assert np.array_equal(data.train.read(0), data.train.read(0))


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("path,label,split", "{path},{label},{part}"),
        ("path,label,is_valid", "{path},{label},{truth}"),
        ("path,label,Data Set", "{path},{label},{part}"),
        ("filepaths,labels,anything", "{path},{label},{part}"),
    ],
)
def test_common_forms_of_splits(folder, header, line):
    data = load_data(table(folder, rows(header, line)))
    assert data.own_split
    assert {data.val.name(index) for index in range(len(data.val))} == {"cat/000.png", "dog/000.png"}


def test_tabs_and_pictures_in_a_folder_below(folder):
    class_folders(folder / "images", {"emu": 3, "owl": 3})
    file = folder / "list.tsv"
    file.write_text(
        "id\tlabel, as given\n" + "".join(f"{name}/00{n}\t{name}\n" for name in ("emu", "owl") for n in range(3))
    )
    data = load_data(str(file))
    assert data.val.name(0).startswith("images/emu/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows("path,label,fold", "{path},{label},{row}"), "the column fold with 0, 1, 2, .* does not say which rows"),
        (rows("path,label,split", "{path},{label},{truth}"), "holds True, which does not say .* rename it to is_valid"),
        (
            rows("path,class,target", "{path},{label},{label}"),
            "class and target could be.*--path-column path --label-column",
        ),
        (rows("one,two", "{path},{path}"), "one and two could be that of the pictures' files.*--path-column one"),
        (rows("a b,kind,more", "{path},{label},x{row}"), '--path-column "a b" --label-column kind'),
        (rows("path,cat,dog", "{path},1,1"), "row 1 marks 2 of the columns cat, dog"),
        (rows("path,label,split,set", "{path},{label},{part},{part}"), "split and set, and each looks like the split"),
        (rows("path,path,label", "{path},{path},{label}"), "has two columns 'path'"),
    ],
)
def test_tables_that_could_be_read_in_two_ways(folder, text, message):
    with pytest.raises(HalftoneError, match=message):
        load_data(table(folder, text))


def test_the_columns_can_be_named(folder):
    file = table(folder, rows("a b,kind,more,which", "{path},{label},x{row},{part}"))
    columns = Columns(path_column="a b", label_column="kind", split_column="which")
    data = load_data(file, columns=columns)
    assert (len(data.val), data.own_split) == (2, True)
    assert data.warnings == ("nothing is taken from the columns more",)
    result = run("training.data", "--data", file, "--path-column", "a b", "--label-column", "kind")
    assert result.returncode == 0, result.stderr
    assert "cat: 4 + 1" in result.stdout
    with pytest.raises(HalftoneError, match=r"has no column 'nope': it has 'a b', 'kind'"):
        load_data(file, columns=Columns(label_column="nope"))
    with pytest.raises(HalftoneError, match=r"not a \.csv or \.tsv file, so it has no columns to name"):
        load_data(str(folder), columns=columns)


def test_repeated_rows_and_unused_columns_are_said(folder):
    data = load_data(
        table(
            folder, "path,label,width\n" + "".join(f"{row},12\n" for row in (ROWS + "cat/000.png,cat").splitlines()[1:])
        )
    )
    assert data.warnings == (
        "1 rows repeat a picture, such as line 12: it counts once",
        "nothing is taken from the columns width",
    )


@pytest.mark.parametrize(
    ("line", "name", "first", "header"),
    [
        ("{path},{label}", "list.csv", "cat/000.png", "path,label"),
        ("{label};{back}", "list.csv", r"cat\000.png", "label;path"),
        ("{label}\t{stem}\t{part}", "list.tsv", "cat/000", "label<TAB>path<TAB>split"),
        ("{path},1,1,1", "list.csv", "cat/000.png", "path,label"),
    ],
)
def test_a_first_line_that_is_a_picture_is_refused(folder, line, name, first, header):
    file = folder / name
    lines = rows("", line).removeprefix("\n")
    file.write_text(lines)
    with pytest.raises(HalftoneError) as caught:
        load_data(str(file))
    assert str(caught.value) == (
        f"the first line of {file} is a picture ({first}), but must name the columns: put the line `{header}` above it"
    )
    if "1,1" not in line:
        file.write_text(header.replace("<TAB>", "\t") + "\n" + lines)
        data = load_data(str(file))
        assert len(data.train) + len(data.val) == 10


@pytest.mark.parametrize("header", ["image,kind", "photo,breed"])
def test_a_column_with_the_name_of_a_picture_is_a_column(folder, header):
    (folder / "image.png").write_bytes((folder / "cat" / "000.png").read_bytes())
    (folder / "breed.txt").touch()
    assert len(load_data(table(folder, rows(header, "{path},{label}"))).train) == 8


def test_a_test_part_of_a_table(folder):
    text = rows("path,label,split", "{path},{label},{part}").replace("001.png,cat,training", "001.png,cat,test")
    data = load_data(table(folder, text))
    assert (len(data.train), len(data.val), len(data.test)) == (7, 2, 1)
    assert "the part test chooses nothing" in data.warnings[0]
    alone = load_data(table(folder, text.replace("valid", "test")))
    assert (len(alone.val), alone.test) == (3, None)
    assert "mark some rows of train as val" in alone.warnings[0]


def test_a_column_keep_leaves_rows_out(tmp_path):
    class_folders(tmp_path, {"cat": 4, "dog": 4})
    rows = [f"{label}/00{number}.png,{label},{keep}" for label in ("cat", "dog") for number, keep in enumerate(KEEP)]
    (tmp_path / "all.csv").write_text("\n".join(["path,label,keep", *rows]))
    data = load_data(str(tmp_path / "all.csv"), val_share=0.4)
    assert len(data.train) + len(data.val) == 6
    assert data.warnings == ()
    for wrong, message in (("perhaps", "row 1 has 'perhaps' in the column keep"), ("0", "keeps no row")):
        (tmp_path / "all.csv").write_text(f"path,label,keep\ncat/000.png,cat,{wrong}\ndog/000.png,dog,0")
        with pytest.raises(HalftoneError, match=message):
            load_data(str(tmp_path / "all.csv"))
