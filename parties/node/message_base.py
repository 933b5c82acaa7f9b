"""What messages between node and worker are made of."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.functional_serializers import PlainSerializer
from pydantic.functional_validators import PlainValidator


def _bytes_of(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("not base64")
    return base64.b64decode(value, validate=True)


# Bytes, which are base64 in JSON.
Base64 = Annotated[
    bytes, PlainValidator(_bytes_of), PlainSerializer(lambda value: base64.b64encode(value).decode(), return_type=str)
]
Label = Annotated[str, Field(max_length=400)]
Text = Annotated[str, Field(max_length=4000)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Message(BaseModel):
    """A message: its fields and no others, of their own types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
