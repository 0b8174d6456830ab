"""Images that bring a client of Lambda's Runtime API: the platform's front, as a second container of their pod (decision 0027).

Pure. Port and probes belong to the image's container, although the front answers them (a pod has one network): so Knative speaks
of that container in its conditions, and the kubelet starts that one anew when its client doesn't come back. The front, which
Knative allows no probe of its own, ends by itself when something is wrong with it.
"""

from typing import Final

from wisp_api.function import CONTAINER, FunctionSpec

from wisp_operator.api import Object

FRONT_RUNTIME: Final = "provided"
"""The runtime whose image has front and bridge."""
_FRONT: Final = "front"
_PORT: Final = 8080
_RUNTIME_API: Final = "127.0.0.1:9001"
_USER: Final = 993
"""Who runs an image in AWS Lambda, whatever its USER is; most have none, and the cluster lets none run as root."""
_CPU: Final = "25m"
_MEMORY: Final = "48Mi"
_MOST_MEMORY: Final = "128Mi"
"""With events and answers of 6 MiB front and bridge have at most 87 MiB together."""
_BUFFERED_BYTES: Final = 12 * 1024 * 1024
_LIFE_SECONDS: Final = 3


def brings_client(spec: FunctionSpec) -> bool:
    """Whether the image speaks Lambda's Runtime API by itself."""
    return spec.runtime == CONTAINER and spec.signature == "lambda"


def serves_itself(spec: FunctionSpec) -> bool:
    """Whether the image serves HTTP, and nothing of the platform's stands before it."""
    return spec.runtime == CONTAINER and spec.signature != "lambda"


def make_front(image: str, env: list[Object], security: Object) -> Object:
    """The front's container."""
    own = {"WISP_RUNTIME_API": _RUNTIME_API, "WISP_MAX_BUFFERED_BYTES": str(_BUFFERED_BYTES)}
    return {
        "name": _FRONT,
        "image": image,
        "env": env + [{"name": name, "value": value} for name, value in own.items()],
        "resources": {"requests": {"cpu": _CPU, "memory": _MEMORY}, "limits": {"memory": _MOST_MEMORY}},
        "securityContext": security,
    }


def add_to_client(container: Object, spec: FunctionSpec) -> None:
    """Add what the image's own container has besides: the port, the probe of its life, the user, the handler as its argument."""
    container["ports"] = [{"containerPort": _PORT}]
    container["livenessProbe"] = {
        "httpGet": {"path": "/_wisp/life", "port": 0},
        "successThreshold": 1,
        "failureThreshold": 1,
        "periodSeconds": _LIFE_SECONDS,
        "timeoutSeconds": 5,
        # No terminationGracePeriodSeconds: the schema of Knative's Service doesn't know it in a probe.
    }
    container["securityContext"] = container["securityContext"] | {"runAsUser": _USER}
    if spec.handler:
        container["args"] = [spec.handler]


def client_env(function: Object, spec: FunctionSpec, memory: int) -> list[Object]:
    """What AWS Lambda tells an image in its environment, as far as the Function doesn't say otherwise; `memory` in MiB."""
    name, namespace = function["metadata"]["name"], function["metadata"]["namespace"]
    values = {
        "AWS_LAMBDA_RUNTIME_API": _RUNTIME_API,
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/wisp/{namespace}/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "LAMBDA_TASK_ROOT": "/var/task",
        "TZ": ":UTC",
    }
    if spec.handler:
        values["_HANDLER"] = spec.handler
    given = {variable.name for variable in spec.env or []}
    return [{"name": key, "value": value} for key, value in values.items() if key not in given]
