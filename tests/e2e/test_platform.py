"""The platform as a whole: the demo that ends `make up`, and a machine that went away and came back."""

import pytest
from fixtures.functions import answering, call, function
from fixtures.platform import wisp_cluster
from fixtures.process import wait_until
from wisp_cluster import onenode
from wisp_cluster.kubectl import Kubectl


@pytest.mark.usefixtures("kubectl")
def test_demo_shows_photo_and_rows() -> None:
    """The demo ends well: a photo made its thumbnail, a row's insert, update and delete arrived in order with old and new values."""
    lines = wisp_cluster("demo").splitlines()
    assert any("photos-small/in/" in line and "256x192" in line for line in lines)
    operations = [line.split()[0] for line in lines if "old: " in line]
    assert operations == ["insert", "update", "delete"]
    assert any(line.startswith("It works") for line in lines)


def test_everything_killed_comes_back(namespace: Kubectl) -> None:
    """After SIGKILL of every process of the cluster, `up` mends it and a function answers as before."""
    namespace.apply(function("survivor", answering("still here")))
    url = namespace.wait_ready("functions", "survivor")["status"]["url"]
    onenode.kill_everything()
    wisp_cluster("up")
    wait_until(lambda: call(url) == (200, '"still here"'), "the function answers again", 240)
    wisp_cluster("install")
