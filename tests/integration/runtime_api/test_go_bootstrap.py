"""A bootstrap in Go, with nothing but its standard library: what most people deploy as runtime provided."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from fixtures.worker import RESULT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from unit.runtime_api.conftest import Bridge

PROGRAM = """package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	api := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/"
	for {
		answer, err := http.Get(api + "next")
		if err != nil {
			panic(err)
		}
		event, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		id := answer.Header.Get("Lambda-Runtime-Aws-Request-Id")
		result := fmt.Sprintf(`{"event": %s, "id": "%s"}`, event, id)
		done, err := http.Post(api+id+"/response", "application/json", bytes.NewBufferString(result))
		if err != nil || done.StatusCode != 202 {
			panic(fmt.Sprint(err, done))
		}
		io.Copy(io.Discard, done.Body)
		done.Body.Close()
	}
}
"""


def test_a_program_in_go_is_a_function(bridge: Callable[..., Bridge], tmp_path: Path) -> None:
    """It keeps its connection, and serves one event after the other."""
    (tmp_path / "main.go").write_text(PROGRAM)
    subprocess.run(["go", "build", "-o", tmp_path / "program", tmp_path / "main.go"], check=True, timeout=300)
    worker = bridge((tmp_path / "program").read_bytes())
    worker.ready()
    for number in range(1, 51):
        frame = worker.call(str(number))
        assert (frame.kind, frame.json) == (RESULT, {"event": number, "id": f"r-{number}"})
