"""A backend whose decoder fails; in a module of its own, as the process that reads media files has to import it."""

import ctypes


class CrashingBackend:
    def prepare(self, path):
        ctypes.string_at(0)
