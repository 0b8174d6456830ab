"""From a list of packages to a function that imports them: the real resolver, a private index, the store and the runtime as real processes."""

import io
import re
import ssl
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.code_store import Tenant
from fixtures.package_index import PASSWORD, USER, PackageIndex, package_index
from unit.runtime.conftest import FunctionProcess
from wisp_api.code import WRITE, BuildTask, FetchResult
from wisp_events.code.build import build
from wisp_events.sources.reader import Trouble

Start = Callable[..., FunctionProcess]


def built(tenant: Tenant, index: str, requirement: str) -> FetchResult:
    """What the Job's program comes to, in this process and with little patience."""
    task = BuildTask(
        namespace=tenant.namespace, store=tenant.store.url, index=index, secret="its-secret", requirements=[requirement]
    )
    return build(task, tenant.directory / "index", tenant.path(WRITE), patience=0.1)


@pytest.fixture
def index(tenant: Tenant) -> Iterator[PackageIndex]:
    """A private index, to which the namespace has the key."""
    with package_index() as running:
        running.offer("alpha", "1.0", {"alpha.py": "import beta\nN = beta.N + 1\n", "old.py": "print 1\n"}, ["beta>=2"])
        running.offer("beta", "1.0", {"beta.py": "N = 0\n"})
        running.offer("beta", "2.1", {"beta.py": "N = 1\n"})
        tenant.open_index(username=USER, password=PASSWORD)
        yield running


def test_packages_are_imported(tenant: Tenant, index: PackageIndex, serve: Start, tmp_path: Path) -> None:
    """A requirement and what it needs lie in /opt/python, compiled, and layers lie over them."""
    result = tenant.build(index.url, "alpha")
    assert result["status"] == 0, result
    assert result["packages"] == ["alpha==1.0", "beta==2.1"]
    (layer,) = result["archives"]
    opt = tmp_path / "opt"
    opt.mkdir()
    code = "import alpha\ndef handler(event, context):\n    return [alpha.N, alpha.__cached__]\n"
    number, compiled = serve(code, **tenant.code_env("", (layer["sha256"],), opt)).invoke({}).json
    assert number == 2
    assert Path(compiled).is_file()


def test_same_packages_are_the_same_layer(tenant: Tenant, index: PackageIndex) -> None:
    """What is built twice of the same packages has the same bytes, however they were asked for, and is stored once."""
    first, second = tenant.build(index.url, "alpha"), tenant.build(index.url, "beta<3", "alpha==1.0")
    assert first["archives"] == second["archives"]
    assert len([key for key in tenant.store.archives() if key.startswith(f"{tenant.namespace}/")]) == 1


@pytest.mark.parametrize(
    ("requirement", "reason", "says"),
    [
        ("missing", "ResolutionFailed", "missing was not found in the package registry"),
        ("beta>5", "ResolutionFailed", "you require beta>5"),
        ("source", "ResolutionFailed", "Wheels are required for `source`"),
        ("linked", "ResolutionFailed", "included as a URL dependency"),
        ("swapped", "HashMismatch", "Hash mismatch for `swapped==1.0`"),
    ],
)
def test_resolver_tells_what_is_wrong(
    tenant: Tenant, index: PackageIndex, requirement: str, reason: str, says: str
) -> None:
    """The verdict holds the resolver's own words; source packages, packages by URL and other bytes than the index states are refused."""
    index.files["source-1.0.tar.gz"] = b"never read"
    index.offer("linked", "1.0", {"linked.py": ""}, [f"beta @ {index.url}/beta-2.1-py3-none-any.whl"])
    index.offer("swapped", "1.0", {"swapped.py": ""})
    index.stated["swapped-1.0-py3-none-any.whl"] = "0" * 64
    with pytest.raises(Trouble, match=re.escape(says)) as raised:
        built(tenant, index.url, requirement)
    assert raised.value.reason == reason
    assert not any(key.startswith(f"{tenant.namespace}/") for key in tenant.store.archives())
    assert "/files/source-1.0.tar.gz" not in index.asked


def test_password_is_told_to_nobody(tenant: Tenant, index: PackageIndex) -> None:
    """A wrong password is a verdict that names the Secret; neither it nor the log holds the password."""
    tenant.open_index(password="not-the-password")
    result = tenant.build(index.url, "alpha")
    assert result["reason"] == "AuthenticationFailed", result
    assert "Secret wisp-package-index" in result["message"]
    assert "not-the-password" not in str(result)
    tenant.open_index(password=PASSWORD)
    assert PASSWORD not in str(tenant.build(index.url, "missing"))


def test_wheel_cannot_leave_its_folder(tenant: Tenant, index: PackageIndex) -> None:
    """Names in a wheel that lead out of its folder are written nowhere: not to the Job's disk, not to the layer."""
    name = f"{tenant.namespace}-evil.py"
    index.offer("evil", "1.0", {f"../../{name}": "", f"{tempfile.gettempdir()}/{name}": "", "good.py": ""})
    (layer,) = built(tenant, index.url, "evil").archives
    assert not (Path(tempfile.gettempdir()) / name).exists()
    key = f"{tenant.namespace}/{layer.sha256}"
    names = zipfile.ZipFile(io.BytesIO(tenant.store.minio.client().get_object("wisp-code", key).read())).namelist()
    assert "python/good.py" in names
    assert not [one for one in names if "evil.py" in one or not one.startswith("python/")]


def test_store_refuses_another_namespace(tenant: Tenant, index: PackageIndex) -> None:
    """The right that a Job holds opens its own namespace's part of the store only."""
    tenant.namespace = f"other-than-{tenant.namespace}"
    with pytest.raises(Trouble, match="refuses this namespace's credentials") as raised:
        built(tenant, index.url, "beta")
    assert raised.value.reason == "CodeStoreUnavailable"


def test_index_that_is_away_is_waited_for(tenant: Tenant) -> None:
    """An index that doesn't answer is tried again, and then told of as away, not as a mistake in the list."""
    with pytest.raises(Trouble, match="does not answer") as raised:
        built(tenant, "http://127.0.0.1:1/simple", "alpha")
    assert raised.value.reason == "IndexUnreachable"


def test_index_with_an_authority_of_its_own(tenant: Tenant, tmp_path: Path) -> None:
    """The namespace's Secret names another index, and who signed its certificate; without that it is not trusted."""
    files = tmp_path / "index.crt", tmp_path / "index.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=index", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-addext", "basicConstraints=critical,CA:FALSE", "-out", str(files[0]), "-keyout", str(files[1])]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*files)
    with package_index(tls) as index:
        index.offer("beta", "2.1", {"beta.py": "N = 1\n"})
        tenant.open_index(url=index.url, username=USER, password=PASSWORD, ca_crt=files[0].read_text())
        assert tenant.build("http://127.0.0.1:1/simple", "beta")["packages"] == ["beta==2.1"]
