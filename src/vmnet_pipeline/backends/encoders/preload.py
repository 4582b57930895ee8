"""What a process imports before it drops the rights that importing needs; see `media.sandbox`."""

from contextlib import suppress

from vmnet_pipeline.backends.encoders import library
from vmnet_pipeline.errors import ParameterError

with suppress(ParameterError):  # the call itself reports it
    library.import_library()
    library.use_one_thread()
