"""Condition types and reasons, the constants that users and tools match on."""

from typing import Final

READY: Final = "Ready"
CODE_READY: Final = "CodeReady"
SERVICE_READY: Final = "ServiceReady"
SOURCE_READY: Final = "SourceReady"
FUNCTION_READY: Final = "FunctionReady"

# Sources, as readers report them.
SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105 - a reason, not a password
INVALID_CONNECTION: Final = "InvalidConnection"
AUTHENTICATION_FAILED: Final = "AuthenticationFailed"
SERVER_UNREACHABLE: Final = "ServerUnreachable"
PERMISSION_DENIED: Final = "PermissionDenied"
UNKNOWN_SERVER: Final = "UnknownServer"
BUCKET_NOT_FOUND: Final = "BucketNotFound"
NOTIFICATION_REFUSED: Final = "NotificationRefused"
TABLE_NOT_FOUND: Final = "TableNotFound"
NO_REPLICA_IDENTITY: Final = "NoReplicaIdentity"
LOGICAL_DECODING_OFF: Final = "LogicalDecodingOff"
SLOT_LOST: Final = "SlotLost"
WAITING_FOR_TRANSACTIONS: Final = "WaitingForTransactions"
LOG_UNAVAILABLE: Final = "LogUnavailable"
