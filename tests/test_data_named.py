"""MNIST, CIFAR and the embedded digits: against torchvision and published numbers; what is said when one is absent."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from augend.contract import AugendError
from augend.data import Pictures, Split, load

ROOT = os.environ.get("AUGEND_DATA")


def needs(*parts: str) -> pytest.MarkDecorator:
    there = ROOT is not None and Path(ROOT, *parts).is_dir()
    return pytest.mark.skipif(not there, reason=f"AUGEND_DATA has no {'/'.join(parts)}")


def whole_train(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Train and validation put back in the order of the file, by id."""
    ids = [*split.train.ids, *split.valid.ids]
    order = torch.tensor(sorted(range(len(ids)), key=ids.__getitem__))
    assert [ids[i] for i in order.tolist()] == [f"train/{i:05d}" for i in range(len(ids))]
    pixels, labels = (
        torch.cat([getattr(p, part) for p in (split.train, split.valid)]) for part in ("pixels", "labels")
    )
    return pixels[order], labels[order]


@needs("MNIST", "raw")
def test_mnist_is_torchvisions_and_has_the_published_mean() -> None:
    from torchvision.datasets import MNIST

    split = load("mnist")
    pixels, labels = whole_train(split)
    assert ROOT is not None
    official, test = MNIST(ROOT, train=True), MNIST(ROOT, train=False)
    assert torch.equal(pixels[:, 0], official.data) and torch.equal(labels, official.targets)
    assert torch.equal(split.test.pixels[:, 0], test.data) and torch.equal(split.test.labels, test.targets)
    assert (len(split.train), len(split.valid), len(split.test)) == (55000, 5000, 10000)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert round(float(pixels.double().mean() / 255), 4) == 0.1307
    assert round(float(pixels.double().std() / 255), 4) == 0.3081
    assert abs(split.mean[0] - 0.1307) < 5e-4 and split.fixed_test
    assert not split.traits & {"hflip", "vflip", "colour"}
    share = torch.tensor(split.valid.counts(10)) - torch.bincount(labels) / 12
    assert share.abs().max() < 1.5


@needs("cifar-10-batches-bin")
def test_cifar10_has_the_published_numbers() -> None:
    split = load("cifar10")
    pixels, labels = whole_train(split)
    assert (len(split.train), len(split.valid), len(split.test)) == (45000, 5000, 10000)
    assert labels[:5].tolist() == [6, 9, 9, 4, 1] and split.test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert [split.classes[i] for i in (3, 8, 0)] == ["cat", "ship", "airplane"]
    assert torch.bincount(labels).tolist() == [5000] * 10 and split.valid.counts(10) == [500] * 10
    x = pixels.double().div_(255)
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=5e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.tensor([0.2470, 0.2435, 0.2616]).double(), atol=5e-5, rtol=0)
    assert {"hflip", "colour"} <= split.traits


@needs("cifar-100-binary")
def test_cifar100_takes_the_fine_labels() -> None:
    split = load("cifar100:train=2000,valid=1000,test=500")
    assert split.train.counts(100) == [20] * 100 and split.valid.counts(100) == [10] * 100
    assert split.test.counts(100) == [5] * 100
    assert ROOT is not None
    names = Path(ROOT, "cifar-100-binary", "fine_label_names.txt")
    assert not names.exists() or tuple(names.read_text().split()) == split.classes
    again = load("cifar100:train=2000,valid=1000,test=500", repeat=1)
    assert again.train.ids != split.train.ids and again.test.ids == split.test.ids
    assert split.name == "cifar100:train=2000,valid=1000,test=500"


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    from augend.data.digits import embedded_digits

    data, target = load_digits(return_X_y=True)
    small = embedded_digits(8)
    assert torch.equal(small.pixels.view(1797, 64).double(), torch.from_numpy(data * 255 / 16).float().round().double())
    assert torch.equal(small.labels, torch.from_numpy(target))
    large = embedded_digits()
    assert large.shape == (1, 28, 28) and large.ids == small.ids
    split = load("digits")
    assert (len(split.train), len(split.valid), len(split.test)) == (1079, 359, 359) and not split.fixed_test
    assert load("digits", repeat=1).test.ids != split.test.ids


def test_digits_do_not_import_scikit_learn_and_are_the_same_everywhere() -> None:
    code = (
        "import sys; from augend.data import load; s = load('digits', seed=5, repeat=2);"
        "assert 'sklearn' not in sys.modules and 'torchvision' not in sys.modules; print(s.digest, s.ids_digest)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = load("digits", seed=5, repeat=2)
    assert out == [here.digest, here.ids_digest]


# ---------------------------------------------------------------------------------------------- layouts, absence


def idx(file: Path, array: np.ndarray, zipped: bool) -> None:
    raw = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    if zipped:
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(raw))
    else:
        file.write_bytes(raw)


def small_mnist(root: Path, zipped: bool) -> None:
    rng = np.random.default_rng(0)
    for stem, n in (("train", 60), ("t10k", 20)):
        raw = root / "MNIST" / "raw"
        idx(raw / f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28), np.uint8), zipped)
        idx(raw / f"{stem}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8), zipped)


def test_idx_plain_and_zipped_are_the_same(tmp_path: Path) -> None:
    for zipped in (False, True):
        small_mnist(tmp_path / str(zipped), zipped)
    plain, packed = (load("mnist:valid=10", root=tmp_path / str(z)) for z in (False, True))
    assert plain.digest == packed.digest and len(plain.train) == 50 and plain.test.counts(10) == [2] * 10


def test_damaged_idx_is_one_line(tmp_path: Path) -> None:
    small_mnist(tmp_path, False)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(AugendError, match="train-images-idx3-ubyte is damaged"):
        load("mnist", root=tmp_path)
    file.write_bytes(b"not found (404)")
    with pytest.raises(AugendError, match="no idx file"):
        load("mnist", root=tmp_path)


def python_cifar(root: Path) -> tuple[dict[str, str], np.ndarray, list[int]]:
    """A small CIFAR-10 in the python layout; returns the files' MD5s, pixels and labels of train."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng, md5 = np.random.default_rng(0), {}
    pixels, labels = rng.integers(0, 256, (120, 3072), np.uint8), [i % 10 for i in range(120)]
    for k, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        part = slice(20 * k, 20 * k + 20)
        raw = pickle.dumps({b"data": pixels[part], b"labels": labels[part]})
        (folder / name).write_bytes(raw)
        md5[name] = hashlib.md5(raw).hexdigest()
    return md5, pixels[:100], labels[:100]


def test_python_layout_with_the_published_checksums_equals_the_binary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    md5, pixels, labels = python_cifar(tmp_path / "py")
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, md5[name]] for name, _ in CIFAR10.test_list])
    split = load("cifar10:valid=20", root=tmp_path / "py")
    got, got_labels = whole_train(split)
    assert torch.equal(got, torch.from_numpy(pixels).view(-1, 3, 32, 32)) and got_labels.tolist() == labels

    folder = tmp_path / "bin" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = np.column_stack([np.array(labels, np.uint8), pixels])
    for k in range(5):
        (folder / f"data_batch_{k + 1}.bin").write_bytes(records[20 * k : 20 * k + 20].tobytes())
    with (tmp_path / "py" / "cifar-10-batches-py" / "test_batch").open("rb") as file:
        test = pickle.load(file)
    (folder / "test_batch.bin").write_bytes(
        np.column_stack([np.array(test[b"labels"], np.uint8), test[b"data"]]).tobytes()
    )
    assert load("cifar10:valid=20", root=tmp_path / "bin").digest == split.digest


class Trap:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (os.environ["TRAP"],)


def test_a_pickle_of_another_checksum_is_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python_cifar(tmp_path)
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(AugendError, match="data_batch_1 is not the published file"):
        load("cifar10", root=tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("word", ["mnist", "cifar10", "cifar100", "mnist-tilt"])
def test_absent_and_offline_is_one_line(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGEND_OFFLINE", "1")
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(AugendError) as caught:
        load(word, root=tmp_path / "empty")
    message = str(caught.value)
    assert "\n" not in message and str(tmp_path / "empty") in message and "--data-root" in message
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("AUGEND_DATA", str(tmp_path / "gone"))
    with pytest.raises(AugendError, match=r"AUGEND_DATA is .*gone.* no such folder"):
        load(word)


# ---------------------------------------------------------------------------------------------- the text of load


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cifr10", "did you mean 'cifar10'"),
        ("no/such/folder", "neither a folder, nor a table, nor a known set"),
        ("digits:", "cannot read ''"),
        ("digits:train", "cannot read 'train'"),
        ("digits:train=", "cannot read 'train='"),
        ("digits:train=1,train=2", "given twice"),
        ("digits:trian=200", "did you mean 'train'"),
        ("digits:seed=3", "unknown option 'seed'"),
        ("digits:train=many", "many"),
        ("digits:train=5000", "only 1,797"),
        ("mnist-tilt:protocol=author", "did you mean 'authors'"),
    ],
)
def test_bad_text_is_one_line(text: str, says: str) -> None:
    with pytest.raises(AugendError, match=says) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_arguments_go_before_the_text_and_size_resizes() -> None:
    split = load("digits:train=100,valid=10%", train=50, size=20)
    assert len(split.train) == 50 and len(split.valid) == 180 and split.shape == (1, 20, 20)
    assert load("digits:train=50", traits=frozenset({"crop"})).traits == {"crop"}


def test_a_registered_set_is_loaded_with_its_options() -> None:
    from augend.names import register

    @register.data("test-stripes")
    def stripes(width: int = 2, *, root: object = None) -> Split:
        def some(n: int) -> Pictures:
            pixels = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
            pixels[:, :, :, ::width] = 255
            return Pictures(pixels, torch.arange(n) % 2, tuple(map(str, range(n))))

        return Split("stripes", ("a", "b"), some(4), some(2), some(2), frozenset())

    assert load("test-stripes:width=4").train.pixels[0, 0, 0].tolist() == [255, 0, 0, 0, 255, 0, 0, 0]
    with pytest.raises(AugendError, match="unknown option 'train'"):
        load("test-stripes", train=3)
