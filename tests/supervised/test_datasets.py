"""Tests of datasets.py: where files are looked for, downloads, generated data, noise."""

import concurrent.futures
import contextlib
import gzip
import hashlib
import http.server
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    ARCHIVE,
    BATCH_FOLDER,
    BATCHES,
    SMALL_MNIST,
    assert_well_formed,
    cifar_archive,
    cifar_batches,
    cifar_tar,
    mat,
    md5,
    peak_below,
    refusal,
    svhn_files,
    write_files,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from supervised import datasets
from supervised.datasets import Split

ROOT = Path(datasets.__file__).parent.parent


# ---- MNIST ----


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with a small stand-in that datasets.py takes for the official MNIST."""
    official = {
        name: (struct.unpack_from(f">{4 if 'images' in name else 2}i", raw), md5(raw))
        for name, raw in SMALL_MNIST.items()
    }
    monkeypatch.setattr(datasets, "MNIST_FILES", official)
    monkeypatch.setattr(datasets, "MNIST_VALIDATION", 2)
    packed = {f"{name}.gz": gzip.compress(raw) for name, raw in SMALL_MNIST.items()}
    return write_files(tmp_path / "mnist", packed)


def test_embedded_mnist_is_complete_and_split_as_usual():
    mnist = datasets.load_mnist()
    assert_well_formed(mnist, 784)
    splits = (mnist.train, mnist.validation, mnist.test)
    assert [len(split.labels) for split in splits] == [55_000, 5_000, 10_000]
    # The first digits of both files, as seen in every introduction to MNIST.
    assert mnist.validation.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    with gzip.open(ROOT / "data/mnist/train-images-idx3-ubyte.gz") as stream:
        raw = stream.read()[16:]
    assert mnist.validation.images.tobytes() + mnist.train.images.tobytes() == raw


def test_mnist_readme_names_the_files_and_checksums():
    readme = (ROOT / "data/mnist/README.md").read_text()
    for name, (_, digest) in datasets.MNIST_FILES.items():
        assert f"{name}.gz" in readme
        assert digest in readme


def test_mnist_from_a_folder_with_or_without_gz(small_mnist, tmp_path):
    packed = datasets.load_mnist(str(small_mnist))
    assert_well_formed(packed, 784)
    assert [len(s.labels) for s in (packed.train, packed.validation)] == [7, 2]
    plain = datasets.load_mnist(str(write_files(tmp_path / "plain", SMALL_MNIST)))
    for name in ("train", "validation", "test"):
        one, other = getattr(packed, name), getattr(plain, name)
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)


# ---- What all loaders refuse alike ----


def make_mnist(folder):
    return write_files(
        folder, {f"{name}.gz": gzip.compress(raw) for name, raw in SMALL_MNIST.items()}
    )


LOADERS = [
    (datasets.load_mnist, make_mnist, "t10k-labels-idx1-ubyte.gz"),
    (
        datasets.load_cifar10,
        lambda folder: write_files(folder, cifar_batches()),
        "data_batch_3.bin",
    ),
    (
        datasets.load_cifar10,
        lambda folder: write_files(folder, {ARCHIVE: cifar_archive()}),
        ARCHIVE,
    ),
    (
        datasets.load_svhn,
        lambda folder: write_files(folder, svhn_files()),
        "test_32x32.mat",
    ),
]
every_loader = pytest.mark.parametrize(
    ("load", "make", "name"), LOADERS, ids=[name for *_, name in LOADERS]
)


@every_loader
def test_missing_file(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    (folder / name).unlink()
    message = refusal(load, str(folder))
    assert name in message
    assert str(folder) in message


@every_loader
def test_folder_instead_of_file(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    (folder / name).unlink()
    (folder / name).mkdir()
    assert "not a regular file" in refusal(load, str(folder))


@every_loader
def test_pipe_instead_of_file_does_not_block(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "not a regular file" in refusal(load, str(folder))


@every_loader
def test_absurdly_large_file(small_mnist, tmp_path, load, make, name):
    folder = make(tmp_path / "data")
    os.truncate(folder / name, 2**33)  # A hole: it takes no room on the disk.
    with peak_below(2**20):
        assert "larger than the official file" in refusal(load, str(folder))


@every_loader
def test_unreadable_file(small_mnist, tmp_path, monkeypatch, load, make, name):
    folder = make(tmp_path / "data")
    real_open = Path.open

    def refuse(self, *args, **options):
        if self.name == name:
            raise PermissionError(13, "Permission denied", str(self))
        return real_open(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    message = refusal(load, str(folder))
    assert str(folder / name) in message
    assert "Permission denied" in message


@every_loader
@pytest.mark.parametrize("data_dir", ["nowhere", "file", "two\nlines", "nul\0"])
def test_data_dir_that_is_no_folder(tmp_path, monkeypatch, load, make, name, data_dir):
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    message = refusal(load, data_dir)
    assert "no such folder" in message
    assert "--data_dir" in message


@every_loader
def test_data_dir_never_leads_to_a_download(tmp_path, monkeypatch, load, make, name):
    def fail(*args, **options):
        pytest.fail("the network was used")

    monkeypatch.setattr(socket.socket, "connect", fail)
    refusal(load, str(tmp_path))


# ---- CIFAR-10 ----


def test_cifar10_in_every_place_a_user_may_put_it(tmp_path):
    batches = cifar_batches()
    write_files(tmp_path / "folder" / BATCH_FOLDER, batches)
    write_files(tmp_path / "archive", {ARCHIVE: cifar_archive(batches)})
    records = np.frombuffer(b"".join(batches.values()), np.uint8).reshape(-1, 3073)
    for data_dir in ("folder", f"folder/{BATCH_FOLDER}", "archive"):
        cifar = datasets.load_cifar10(str(tmp_path / data_dir))
        assert_well_formed(cifar, 3072)
        assert cifar.validation is None
        assert cifar.train.labels.tolist() == records[:15, 0].tolist()
        assert cifar.test.labels.tolist() == records[15:, 0].tolist()
        # Plane, row, column in the file; row, column, channel in memory.
        images = np.concatenate([cifar.train.images, cifar.test.images])
        for row, column, channel in [(0, 0, 0), (3, 5, 1), (31, 30, 2)]:
            in_file = records[:, 1 + channel * 1024 + row * 32 + column]
            in_memory = images[:, (row * 32 + column) * 3 + channel]
            assert np.array_equal(in_memory, in_file)


# ---- SVHN ----


def test_svhn_and_cifar10_agree_on_the_pixel_order(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    planes = pictures.transpose(0, 3, 1, 2).reshape(2, 3072)
    batch = np.insert(planes, 0, 7, axis=1).tobytes()
    write_files(tmp_path, {**cifar_batches(), "test_batch.bin": batch})
    test = {"X": pictures.transpose(1, 2, 3, 0), "y": np.full((2, 1), 7)}
    write_files(tmp_path, svhn_files(test=test))
    cifar = datasets.load_cifar10(str(tmp_path)).test
    svhn = datasets.load_svhn(str(tmp_path)).test
    assert np.array_equal(cifar.images, svhn.images)
    assert np.array_equal(cifar.images, pictures.reshape(2, 3072))
    assert cifar.labels.tolist() == svhn.labels.tolist() == [7, 7]


# ---- Checksums of a user's files ----


def test_unofficial_files_are_mentioned_in_one_line(tmp_path, capsys):
    write_files(tmp_path / "a" / BATCH_FOLDER, cifar_batches())
    datasets.load_cifar10(str(tmp_path / "a"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path / "a" / BATCH_FOLDER) in line
    assert all(name in line for name in BATCHES)

    write_files(tmp_path / "b", {ARCHIVE: cifar_archive(), **svhn_files()})
    datasets.load_cifar10(str(tmp_path / "b"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path / "b") in line
    assert ARCHIVE in line

    datasets.load_svhn(str(tmp_path / "b"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "train_32x32.mat, test_32x32.mat" in line


def test_official_files_are_not_mentioned(tmp_path, monkeypatch, capsys):
    batches, archive, svhn = cifar_batches(), cifar_archive(), svhn_files()
    digests = {name: hashlib.sha1(raw).hexdigest() for name, raw in batches.items()}
    monkeypatch.setattr(datasets, "CIFAR_BATCHES", digests)
    downloads = {name: ("", md5(raw)) for name, raw in svhn.items()}
    downloads[ARCHIVE] = ("", md5(archive))
    monkeypatch.setattr(datasets, "DOWNLOADS", downloads)
    datasets.load_cifar10(str(write_files(tmp_path / "a", batches)))
    datasets.load_cifar10(str(write_files(tmp_path / "b", {ARCHIVE: archive})))
    datasets.load_svhn(str(write_files(tmp_path / "c", svhn)))
    assert capsys.readouterr() == ("", "")


# ---- Downloads ----


class Site(http.server.ThreadingHTTPServer):
    """A local stand-in for the official sites; `behaviour` says how it answers.

    "good", "slow" (until another request comes, or a second has passed), "missing",
    "wrong", "short" (ends early), "cut" (is reset), "stuck" (sends half, then waits),
    "endless" (sends as long as somebody reads) or "inflating" (the same, compressed).
    """

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.files = files
        self.behaviour = "good"
        self.requests = []
        self.sent = 0
        self.another_request = threading.Event()
        self.half_sent = threading.Event()
        self.closing = threading.Event()

    def downloads(self):
        address = f"http://127.0.0.1:{self.server_port}"
        return {
            name: (f"{address}/{name}", md5(raw)) for name, raw in self.files.items()
        }

    def handle_error(self, request, client_address):
        """Keep quiet about clients that were killed."""


class SiteHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site, name = self.server, self.path[1:]
        site.requests.append(name)
        if len(site.requests) > 1:
            site.another_request.set()
        if site.behaviour == "slow":
            site.another_request.wait(1)
        if site.behaviour == "missing":
            self.send_error(404)
            return
        if site.behaviour in ("endless", "inflating"):
            self.send_without_end(is_packed=site.behaviour == "inflating")
            return
        content = site.files[name]
        half = content[: len(content) // 2]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if site.behaviour == "wrong":
            self.wfile.write(content[::-1])
        elif site.behaviour == "short":
            self.wfile.write(half)
        elif site.behaviour == "cut":
            self.wfile.write(half)
            self.wfile.flush()
            reset_on_close = struct.pack("ii", 1, 0)
            self.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close
            )
            self.connection.close()
        elif site.behaviour == "stuck":
            self.wfile.write(half)
            self.wfile.flush()
            site.half_sent.set()
            site.closing.wait(20)
        else:
            self.wfile.write(content)

    def send_without_end(self, is_packed):
        """Sends zeros until the client closes the connection, or for 1 GB."""
        self.send_response(200)
        if is_packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        zeros = bytes(2**20)
        packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                self.wfile.write(packer.compress(zeros) if is_packed else zeros)
                self.server.sent += len(zeros)

    def log_message(self, *args):
        """Keep quiet."""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder, not there yet, that is the user's cache during the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home cache" / "pathnet"


@pytest.fixture
def site(cache, monkeypatch):
    # Large enough that half of it is more than one chunk.
    files = {ARCHIVE: cifar_archive(cifar_batches(count=20)), **svhn_files()}
    with Site(files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        monkeypatch.setattr(datasets, "DOWNLOADS", server.downloads())
        yield server
        server.closing.set()
        server.shutdown()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def loader_process(site):
    """Start a process that loads CIFAR-10 from the site or the cache."""
    code = (
        "import json, sys; from supervised import datasets\n"
        "datasets.DOWNLOADS = json.loads(sys.argv[1])\n"
        "datasets.load_cifar10()\n"
    )
    downloads = json.dumps(site.downloads())
    return subprocess.Popen([sys.executable, "-c", code, downloads], cwd=ROOT)


def test_download_once_then_use_the_cache(site, cache, capsys):
    for _ in range(2):
        assert_well_formed(datasets.load_cifar10(), 3072)
        assert_well_formed(datasets.load_svhn(), 3072)
    assert site.requests == [ARCHIVE, "train_32x32.mat", "test_32x32.mat"]
    for name, content in site.files.items():
        assert (cache / name).read_bytes() == content
    locks = [f"{name}.lock" for name in site.files]
    assert names_in(cache) == sorted([*site.files, *locks])
    assert capsys.readouterr() == ("", "")  # No progress bar: this is no terminal.


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        ("missing", "HTTP status 404"),
        ("wrong", "not the official checksum"),
        ("short", "cannot be downloaded"),
        ("cut", "cannot be downloaded"),
    ],
)
def test_failed_download_leaves_nothing_behind(site, cache, capsys, behaviour, problem):
    site.behaviour = behaviour
    message = refusal(datasets.load_cifar10)
    assert problem in message
    assert site.downloads()[ARCHIVE][0] in message
    assert names_in(cache) == [f"{ARCHIVE}.lock"]
    assert capsys.readouterr() == ("", "")
    site.behaviour = "good"
    assert_well_formed(datasets.load_cifar10(), 3072)


@pytest.mark.parametrize("behaviour", ["endless", "inflating"])
def test_a_download_without_end_is_given_up(site, cache, monkeypatch, behaviour):
    """Before it fills the disk, or memory."""
    monkeypatch.setattr(datasets.formats, "MAX_BYTES", 2**22)
    site.behaviour = behaviour
    with peak_below(2**26):
        message = refusal(datasets.load_cifar10)
    assert "more than the official file" in message
    assert site.downloads()[ARCHIVE][0] in message
    assert names_in(cache) == [f"{ARCHIVE}.lock"]
    assert site.sent < 200 * 2**20


def member(name, kind, target=""):
    """The entry of an archive for something that is no file, such as a link."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


FIRST = f"{BATCH_FOLDER}/{BATCHES[0]}"
LATER = {
    name: content for name, content in cifar_batches().items() if name != BATCHES[0]
}
HOSTILE_ARCHIVES = {
    "link out": cifar_archive(LATER, [member(FIRST, tarfile.SYMTYPE, "/etc/passwd")]),
    "hard link": cifar_archive(LATER, [member(FIRST, tarfile.LNKTYPE, "../../secret")]),
    "device": cifar_archive(LATER, [member(FIRST, tarfile.CHRTYPE)]),
    "pipe": cifar_archive(LATER, [member(FIRST, tarfile.FIFOTYPE)]),
    "folder": cifar_archive(LATER, [member(FIRST, tarfile.DIRTYPE)]),
    "parent": cifar_archive(LATER, [(f"../{FIRST}", b"evil")]),
    "absolute": cifar_archive(LATER, [(f"/{FIRST}", b"evil")]),
    "escape": cifar_archive(LATER, [("\x1b[2J", b"evil")])[:-9],
    "no archive": gzip.compress(b"\x1f\x8b" * 9999),
}


@pytest.mark.parametrize("kind", HOSTILE_ARCHIVES)
def test_a_hostile_archive_is_downloaded_and_refused(site, cache, monkeypatch, kind):
    """With a checksum that fits: it touches no file but its own."""
    site.files[ARCHIVE] = HOSTILE_ARCHIVES[kind]
    monkeypatch.setattr(datasets, "DOWNLOADS", site.downloads())
    assert str(cache / ARCHIVE) in refusal(datasets.load_cifar10)
    assert names_in(cache) == [ARCHIVE, f"{ARCHIVE}.lock"]
    assert [path.name for path in cache.parent.iterdir()] == ["pathnet"]
    assert (cache / ARCHIVE).read_bytes() == HOSTILE_ARCHIVES[kind]


def test_bombs_are_downloaded_and_refused(site, cache, monkeypatch):
    monkeypatch.setattr(datasets.formats, "MAX_BYTES", 2**23)
    zeros = bytes(2**26)
    site.files[ARCHIVE] = gzip.compress(cifar_tar(extra=[("zeros", zeros)]), 1)
    site.files["train_32x32.mat"] = mat({"X": np.zeros([1, 2**26], np.uint8)})
    monkeypatch.setattr(datasets, "DOWNLOADS", site.downloads())
    for load in (datasets.load_cifar10, datasets.load_svhn):
        with peak_below(50 * 2**20):
            assert "unfolds to more" in refusal(load)


@pytest.mark.parametrize(
    ("load", "names"),
    [
        (datasets.load_cifar10, [ARCHIVE]),
        (datasets.load_svhn, ["train_32x32.mat", "test_32x32.mat"]),
    ],
)
def test_without_network_the_message_says_what_to_put_where(
    cache, monkeypatch, load, names
):
    with socket.socket() as unused:  # Bound but not listening: connections fail.
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        monkeypatch.setattr(datasets, "DOWNLOADS", {name: (url, "") for name in names})
        message = refusal(load)
    for part in (*names, str(cache), "--data_dir", url):
        assert part in message


def test_files_put_into_the_cache_by_hand_are_used(site, cache):
    write_files(cache, site.files)
    datasets.load_cifar10()
    datasets.load_svhn()
    assert site.requests == []


def test_damaged_file_in_the_cache_is_refused_and_kept(site, cache):
    write_files(cache, {ARCHIVE: site.files[ARCHIVE][:-1]})
    message = refusal(datasets.load_cifar10)
    assert "not the official checksum" in message
    assert str(cache / ARCHIVE) in message
    assert names_in(cache) == [ARCHIVE]
    assert site.requests == []


@pytest.mark.parametrize("obstacle", ["", "pathnet", f"pathnet/{ARCHIVE}"])
def test_cache_that_cannot_be_used(site, cache, obstacle):
    obstacle = cache.parent / obstacle
    obstacle.parent.mkdir(parents=True, exist_ok=True)
    if obstacle.name == ARCHIVE:
        obstacle.mkdir()
    else:
        obstacle.write_bytes(b"not a folder")
    assert str(cache / ARCHIVE) in refusal(datasets.load_cifar10)


def test_killed_download_leaves_nothing_that_lasts(site, cache):
    site.behaviour = "stuck"
    for _ in range(2):
        site.half_sent.clear()
        with loader_process(site) as process:
            assert site.half_sent.wait(20)
            process.send_signal(signal.SIGKILL)
        assert not (cache / ARCHIVE).exists()
        assert len(names_in(cache)) <= 2
    site.behaviour = "good"
    assert_well_formed(datasets.load_cifar10(), 3072)
    assert names_in(cache) == [ARCHIVE, f"{ARCHIVE}.lock"]


def test_processes_share_one_download(site, cache):
    site.behaviour = "slow"
    processes = [loader_process(site) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert site.requests == [ARCHIVE]


def test_threads_share_one_download(site, cache):
    site.behaviour = "slow"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(datasets.load_cifar10) for _ in range(4)]
    for task in tasks:
        assert_well_formed(task.result(), 3072)
    assert site.requests == [ARCHIVE]


# ---- Transformations ----


labelled_images = st.integers(0, 30).flatmap(
    lambda count: st.builds(
        Split,
        hnp.arrays(np.uint8, (count, 4)),
        hnp.arrays(np.uint8, count, elements=st.integers(0, 9)),
    )
)


@given(labelled_images, st.permutations(range(10)))
def test_two_classes_keeps_order_and_relabels(split, digits):
    first, second = digits[:2]
    pair = datasets.two_classes(split, first, second)
    expected = [
        (image.tolist(), int(label == second))
        for image, label in zip(split.images, split.labels, strict=True)
        if label in (first, second)
    ]
    actual = zip(pair.images.tolist(), pair.labels.tolist(), strict=True)
    assert list(actual) == expected
    assert pair.images.dtype == pair.labels.dtype == np.uint8
    assert pair.images.flags.c_contiguous


numbered_images = st.lists(st.integers(0, 3), min_size=1, max_size=60).map(
    lambda labels: Split(
        np.arange(len(labels), dtype=np.uint8)[:, None], np.array(labels, np.uint8)
    )
)


@given(numbered_images, st.integers(1, 40), st.integers(0, 2**31))
def test_few_images_are_balanced_and_nested(split, count, seed):
    """Each of them once; of smaller counts they are among those of larger ones."""

    def kept(count):
        few = datasets.few(split, count, np.random.default_rng(seed))
        np.testing.assert_array_equal(split.labels[few.images[:, 0]], few.labels)
        return few.images[:, 0].tolist(), few.labels

    images, labels = kept(count)
    assert len(images) == len(set(images)) == min(count, len(split.labels))
    assert set(images) <= set(kept(count + 1)[0])
    counts = np.bincount(labels, minlength=4)
    whole = np.bincount(split.labels, minlength=4)
    for one, most in zip(counts, whole):  # as many as any other, or all that there are
        assert one == most or one >= counts.max() - 1


def test_all_images_are_kept_unless_a_number_is_given():
    split = Split(np.zeros([3, 1], np.uint8), np.zeros(3, np.uint8))
    assert datasets.few(split, None, np.random.default_rng(0)) is split


def test_two_classes_must_differ():
    with pytest.raises(ValueError, match="both 3"):
        datasets.two_classes(Split(np.zeros((1, 4)), np.zeros(1)), 3, 3)


@given(
    hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3)),
    st.sampled_from(["salt", "salt_and_pepper", "none"]),
    st.integers(0, 2**32),
)
def test_noise_keeps_the_form_and_the_input(images, noise, seed):
    before = images.copy()
    noisy = datasets.add_noise(images, noise, np.random.default_rng(seed))
    again = datasets.add_noise(images, noise, np.random.default_rng(seed))
    assert np.array_equal(images, before)
    assert np.array_equal(noisy, again)
    assert noisy.dtype == np.uint8
    assert noisy.shape == images.shape
    if noise == "salt":
        assert (noisy >= images).all()
    elif noise == "salt_and_pepper":
        assert ((noisy == images) | (noisy == 0) | (noisy == 255)).all()
    else:
        assert np.array_equal(noisy, images)


# With a million pixels, a share of one half has a standard deviation of 0.0005.
MANY = (1000, 1000)


def noisy_levels(level, noise, share=0.5):
    images = np.full(MANY, level, np.uint8)
    return datasets.add_noise(images, noise, np.random.default_rng(0), share)


def test_salt_is_uniform_from_one_half_to_one():
    noisy = noisy_levels(0, "salt")
    salt = noisy[noisy > 0]
    assert salt.size / noisy.size == pytest.approx(0.5, abs=0.003)
    assert salt.min() / 255 >= 0.5
    assert salt.max() / 255 < 1
    levels, counts = np.unique(salt, return_counts=True)
    assert levels.tolist() == list(range(128, 255))
    # Some 3,940 pixels at each of the 127 levels; five standard deviations are 8 %.
    assert counts * 127 / salt.size == pytest.approx(1, abs=0.08)


def test_salt_is_added_and_clipped():
    for level in (1, 100, 127, 200, 255):
        expected = np.minimum(level + noisy_levels(0, "salt").astype(int), 255)
        assert np.array_equal(noisy_levels(level, "salt"), expected)


def test_salt_and_pepper_shares():
    noisy = noisy_levels(100, "salt_and_pepper")
    levels, counts = np.unique(noisy, return_counts=True)
    assert levels.tolist() == [0, 100, 255]
    assert counts / noisy.size == pytest.approx([0.25, 0.5, 0.25], abs=0.003)


@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_a_share_of_the_pixels_has_noise(share):
    noisy = noisy_levels(100, "salt_and_pepper", share)
    assert np.mean(noisy != 100) == pytest.approx(share, abs=0.003)
    assert np.mean(noisy_levels(0, "salt", share) > 0) == pytest.approx(
        share, abs=0.003
    )


@pytest.mark.parametrize("noise", ["salt", "salt_and_pepper"])
def test_noise_of_neighbours_is_independent(noise):
    noisy = noisy_levels(100, noise).astype(float)
    for one, other in [
        (noisy[:, 1:], noisy[:, :-1]),
        (noisy[1:], noisy[:-1]),
        (noisy[:, 4:], noisy[:, :-4]),
    ]:
        correlation = np.corrcoef(one.ravel(), other.ravel())[0, 1]
        assert abs(correlation) < 0.006


def test_noise_is_thrifty_with_memory():
    images = np.zeros((12_000, 784), np.uint8)
    for noise in ("salt", "salt_and_pepper"):
        with peak_below(5 * images.nbytes):
            datasets.add_noise(images, noise, np.random.default_rng(0))


def test_unknown_noise():
    with pytest.raises(ValueError, match="'pepper'"):
        datasets.add_noise(np.zeros(4, np.uint8), "pepper", np.random.default_rng(0))


# ---- Generated data ----


def accuracy_of_softmax_regression(dataset, classes):
    """Train on the training split by gradient descent, return the test accuracy."""
    train, test = (split.images / 255 for split in (dataset.train, dataset.test))
    weights = np.zeros((train.shape[1], classes))
    targets = np.eye(classes)[dataset.train.labels]
    for _ in range(50):
        scores = np.exp(train @ weights)
        shares = scores / scores.sum(axis=1, keepdims=True)
        weights += 0.01 * train.T @ (targets - shares) / len(train)
    return np.mean((test @ weights).argmax(axis=1) == dataset.test.labels)


@pytest.mark.parametrize(("inputs", "classes"), [(784, 2), (784, 10), (3072, 10)])
def test_fake_data_is_well_formed_and_learnable(inputs, classes):
    dataset = datasets.fake(inputs, classes, 300, 200, np.random.default_rng(0))
    assert_well_formed(dataset, inputs)
    assert dataset.validation is None
    for split, count in ((dataset.train, 300), (dataset.test, 200)):
        assert np.bincount(split.labels).tolist() == [count // classes] * classes
    assert accuracy_of_softmax_regression(dataset, classes) > 0.99


def test_a_description_tells_data_sets_apart():
    one = datasets.fake(24, 2, 40, 10, np.random.default_rng(0))
    other = datasets.Dataset(
        datasets.Split(one.train.images, one.train.labels[::-1].copy()), one.test
    )
    same = datasets.fake(24, 2, 40, 10, np.random.default_rng(0))
    assert datasets.describe(one) == datasets.describe(same)
    assert datasets.describe(one) != datasets.describe(other)
    assert datasets.describe(one).startswith("40+10 images, sha256 ")


def test_fake_data_depends_on_the_generator_alone():
    one, same_again, other = (
        datasets.fake(16, 3, 7, 5, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(one.train.images, same_again.train.images)
    assert np.array_equal(one.test.labels, same_again.test.labels)
    assert not np.array_equal(one.train.images, other.train.images)
