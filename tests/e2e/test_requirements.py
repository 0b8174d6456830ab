"""A function with packages of a private index, on the real cluster."""

import json
from pathlib import Path

from fixtures.cli import HELLO, Wisp, write_project
from fixtures.package_index import PASSWORD, USER, package_index
from fixtures.platform import host_address
from wisp_cluster.demo import write_secret
from wisp_cluster.kubectl import Kubectl

CODE = "import alpha\n\n\ndef handler(event, context):\n    return [alpha.N, alpha.__file__, alpha.__cached__]\n"


def test_packages_of_a_private_index(namespace: Kubectl, tmp_path: Path) -> None:
    """`wisp deploy` of a folder with requirements.txt: the resolver's word on a wrong list, then an answer that comes from the package."""
    wisp = Wisp(namespace.kubeconfig, namespace.namespace)
    project = write_project(tmp_path, HELLO, CODE)
    listed = Path(project) / "function" / "requirements.txt"
    with package_index(host=host_address(namespace)) as index:
        index.offer("alpha", "1.0", {"alpha.py": "import beta\nN = beta.N\n"}, ["beta"])
        write_secret(namespace, "wisp-package-index", {"url": index.url, "username": USER, "password": PASSWORD})
        listed.write_text("alpha==1.0\n")
        refused = wisp("deploy", project)
        assert refused.code == 1
        assert "ResolutionFailed: spec.requirements: " in refused.err
        assert "beta was not found in the package registry" in refused.err
        index.offer("beta", "2.0", {"beta.py": "N = 42\n"})
        listed.write_text("alpha==1.0\nbeta\n")
        deployed = wisp("deploy", project)
        assert deployed.code == 0, deployed.err
    called = wisp("invoke", "hello")
    assert called.code == 0, called.err
    number, source, compiled = json.loads(called.out)
    assert (number, source) == (42, "/opt/python/alpha.py")
    assert compiled == "/opt/python/__pycache__/alpha.cpython-313.pyc"
