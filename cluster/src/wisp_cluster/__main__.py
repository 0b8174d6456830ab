"""`python -m wisp_cluster COMMAND`: the cluster, the images, the installation and the demo."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

from wisp_cluster import demo, install
from wisp_cluster.build import build
from wisp_cluster.certificates import kubeconfig as kubeconfig_path
from wisp_cluster.images import built_images
from wisp_cluster.kubectl import Kubectl
from wisp_cluster.progress import ClusterError
from wisp_cluster.way import chosen


def up(_: argparse.Namespace) -> None:
    """Bring the cluster up, or mend it."""
    chosen().up()


def down(_: argparse.Namespace) -> None:
    """Remove the cluster and all that it made on this machine; programs and images stay cached."""
    chosen().down()


def status(_: argparse.Namespace) -> None:
    """Print each part and whether it works; exit 1 where one does not."""
    found = chosen().status()
    for name, problem in found.items():
        print(f"{name:34} {problem or 'ok'}")
    if any(found.values()):
        sys.exit(1)


def logs(options: argparse.Namespace) -> None:
    """Print a component's log."""
    path = chosen().logs(options.component)
    subprocess.run(["tail", "-n", str(options.tail), *(["-F"] if options.follow else []), path], check=False)


def kubeconfig(_: argparse.Namespace) -> None:
    """Print the path of the kubeconfig."""
    print(kubeconfig_path("admin"))


def build_programs(options: argparse.Namespace) -> None:
    """Build the programs named, or all, into the cache."""
    build(options.names)


def build_images(options: argparse.Namespace) -> None:
    """Build the images and print name -> reference as JSON."""
    print(json.dumps(built_images(options.names), indent=1))


def install_wisp(_: argparse.Namespace) -> None:
    """Install Wisp on the cluster, or upgrade it to this checkout."""
    cluster = chosen()
    references = cluster.images()
    cluster.load(references.values())
    install.install(Kubectl.of_cluster(), references)


def show_demo(_: argparse.Namespace) -> None:
    """Deploy the examples and show them at work."""
    demo.demo(Kubectl.of_cluster(), chosen().images())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m wisp_cluster", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=action.__doc__, description=action.__doc__)
        command.set_defaults(action=action)
        return command

    for name, action in {
        "up": up,
        "down": down,
        "status": status,
        "kubeconfig": kubeconfig,
        "install": install_wisp,
        "demo": show_demo,
    }.items():
        add(name, action)
    add("build", build_programs).add_argument("names", nargs="*")
    add("images", build_images).add_argument("names", nargs="*")
    command = add("logs", logs)
    command.add_argument("component")
    command.add_argument("-f", "--follow", action="store_true")
    command.add_argument("--tail", type=int, default=100)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a failure prints what failed, the end of its log and what to do."""
    options = parser().parse_args(arguments)
    try:
        options.action(options)
    except ClusterError as error:
        print(error.report(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
