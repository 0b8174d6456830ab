"""What a function is given instead of CloudEvents: AWS Lambda's events, and Debezium's. Pure.

Each module makes records of one kind; `form` has them by the names that routes use.
"""

from typing import Final

REGION: Final = "us-east-1"
"""AWS' clients refuse an empty region, so what has none is given this one."""
