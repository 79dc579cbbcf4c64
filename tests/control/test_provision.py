"""Buckets, users and policies of a real MinIO: each may what it's said to, and who is wanted no more is gone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import S3Error
from servers import Server
from testcluster import binaries

from frazil_jobs.control.provision import User, provision, unwanted

ROOT = WORD = "minioadmin"  # MinIO's own, where none is given


class RealMinio(Server):
    """The server of the chart."""

    def arguments(self) -> list[str]:
        return [
            str(binaries.folder() / "minio"),
            "server",
            "--quiet",
            "--address",
            self.address,
            str(self.folder / "data"),
        ]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def answers(self) -> bool:
        try:
            self.client(ROOT, WORD).list_buckets()
        except Exception:
            return False
        return True

    def client(self, name: str, secret: str) -> Minio:
        return Minio(endpoint=self.address, access_key=name, secret_key=secret, secure=False)

    def admin(self) -> MinioAdmin:
        return MinioAdmin(endpoint=self.address, credentials=StaticProvider(ROOT, WORD), secure=False)

    def provision(self, *users: User) -> None:
        provision(f"http://{self.address}", ROOT, WORD, list(users))

    def users(self) -> set[str]:
        return set(json.loads(self.admin().user_list()))

    def policies(self) -> set[str]:
        return set(json.loads(self.admin().policy_list()))


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealMinio]:
    if not (binaries.folder() / "minio").exists():
        pytest.skip("there is no MinIO here: run `make cluster-build` (needs Go 1.26)")
    server = RealMinio(tmp_path_factory.mktemp("minio"))
    server.start()
    yield server
    server.stop()


def user(tenant: str, right: str = "write") -> User:
    return User.model_validate(
        {
            "name": f"frazil-default-{right}-{tenant}",
            "secret": f"secret-of-{tenant}",
            "right": right,
            "bucket": "frazil",
            "prefix": f"results/{tenant}",
        }
    )


def put(store: Minio, key: str) -> None:
    store.put_object(bucket_name="frazil", object_name=key, data=io.BytesIO(b"x"), length=1)


def test_a_user_may_write_below_its_prefix_and_nowhere_else(minio):
    one = user("team-a")
    minio.provision(one)
    store = minio.client(one.name, "secret-of-team-a")
    put(store, "results/team-a/x")
    with pytest.raises(S3Error, match="AccessDenied"):
        put(store, "results/team-b/x")


def test_whoever_is_wanted_no_more_is_removed_and_lets_nobody_in(minio):
    stays, goes = user("team-a"), user("team-b")
    minio.provision(stays, goes)
    lost = minio.client(goes.name, "secret-of-team-b")
    put(lost, "results/team-b/x")
    minio.provision(stays)
    assert minio.users() & {stays.name, goes.name} == {stays.name}
    assert minio.policies() & {stays.name, goes.name} == {stays.name}
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        put(lost, "results/team-b/y")
    put(minio.client(stays.name, "secret-of-team-a"), "results/team-a/y")


def test_users_of_others_stay_whatever_they_are_called(minio):
    admin = minio.admin()
    admin.user_add("alice", "a-secret-of-hers")
    admin.user_add("frazil-default-read-only", "another-secret")
    admin.attach_policy(["readonly"], user="frazil-default-read-only")
    admin.policy_add("frazil-default-read-all", policy=user("all").policy)
    minio.provision(user("team-a"))
    assert {"alice", "frazil-default-read-only"} <= minio.users()
    assert {"frazil-default-read-all", "readonly"} <= minio.policies()


def test_a_policy_that_somebody_else_holds_too_stays_with_them(minio):
    gone = user("team-c")
    minio.provision(gone)
    minio.admin().user_add("auditor", "a-secret-of-theirs")
    minio.admin().attach_policy([gone.name], user="auditor")
    minio.provision(user("team-a"))
    assert gone.name not in minio.users()
    assert gone.name in minio.policies()


def test_a_second_time_nothing_changes(minio):
    users = user("team-a"), user("team-a", "read")
    minio.provision(*users)
    before = minio.users(), minio.policies()
    minio.provision(*users)
    assert (minio.users(), minio.policies()) == before


def test_ours_are_told_by_their_name_and_a_policy_of_that_name():
    there = {
        "frazil-default-read-a": "frazil-default-read-a",
        "frazil-default-read-b": "frazil-default-read-b",
        "frazil-gone-control": "frazil-gone-control,diagnostics",
        "frazil-default-write-c": "readwrite",
        "frazil-new": "",
        "bob": "bob",
    }
    assert unwanted(there, ["frazil-default-read-a"]) == ["frazil-default-read-b", "frazil-gone-control"]
