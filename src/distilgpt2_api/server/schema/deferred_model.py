"""The base of the models of bodies."""

from pydantic import BaseModel, ConfigDict


class DeferredModel(BaseModel):
    """A model whose validator is built when it is first used. A hundred of them would delay every start, and most of
    them only describe answers in the OpenAPI document. Not for queries: FastAPI builds their validators itself,
    without pydantic's warnings of what it does there, so they say `defer_build=False`.
    """

    model_config = ConfigDict(defer_build=True)
