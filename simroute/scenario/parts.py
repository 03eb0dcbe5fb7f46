"""What the parts of a scenario are made of: their base and their types of numbers and names. Imports only pydantic."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1, strict=True)]
Whole = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NonNegative = Annotated[float, Field(ge=0, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Rate = Annotated[float, Field(ge=1e-6, le=1e6, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """Base of every part of a scenario: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
