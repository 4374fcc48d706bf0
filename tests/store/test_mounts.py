"""Network file systems are found in the kernel's table."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.store.lock import StateLock, file_system_of, read_mountinfo, refuse_network
from pipeline.store.resources import open_resources
from tests.store.fakes import settings

TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:26 / /mnt/nfs/local rw - xfs /dev/vdb rw
30 22 0:25 / /mnt/nfs rw shared:5 master:2 - nfs4 host:/export rw
32 22 0:27 / /mnt/with\\040space rw - cifs //host/share rw
33 22 0:28 / /mnt/sshfs rw - fuse.sshfs me@host: rw
34 22 0:29 / /mnt/nine rw - 9p hostshare rw
35 22 0:30 / /mnt/over rw - nfs host:/a rw
36 22 0:31 / /mnt/over rw - ext4 /dev/vdc rw
37 22 0:32 / /mnt/bucket rw - fuse.gcsfuse my-bucket rw
a line that means nothing
"""

PLACES = {
    "/home/me": "ext4",
    "/mnt/nfs/x": "nfs4",
    "/mnt/nfs/local/x": "xfs",
    "/mnt/nfs-not/x": "ext4",
    "/mnt/with space/x": "cifs",
    "/mnt/over/x": "ext4",
}


@pytest.mark.parametrize(("place", "kind"), PLACES.items(), ids=PLACES)
def test_innermost_newest_mount_counts(place: str, kind: str) -> None:
    assert file_system_of(Path(place), TABLE) == kind


@pytest.mark.parametrize(
    "place", ["/mnt/nfs/s", "/mnt/with space/s", "/mnt/sshfs/s", "/mnt/nine/s", "/mnt/bucket/s"], ids="D16-{}".format
)
def test_state_on_a_network_file_system_is_refused(place: str) -> None:
    with pytest.raises(InputError, match="name a local `state_dir`"):
        refuse_network(Path(place), mountinfo=lambda: TABLE)


def test_local_and_unknown_file_systems_pass() -> None:
    assert refuse_network(Path("/home/me/state"), mountinfo=lambda: TABLE) is None
    assert refuse_network(Path("/home/me/state"), mountinfo=lambda: "") is None


def test_lock_and_store_ask(tmp_path: Path) -> None:
    table = f"1 1 0:1 / {tmp_path} rw - nfs host:/x rw\n"
    with pytest.raises(InputError):
        StateLock(tmp_path / "state", mountinfo=lambda: table).acquire()
    with pytest.raises(InputError):
        open_resources(settings(tmp_path, mountinfo=lambda: table))
    assert list(tmp_path.iterdir()) == []


def test_this_machine_has_a_table_that_can_be_read() -> None:
    table = read_mountinfo()
    assert table == "" or file_system_of(Path("/"), table) != ""
