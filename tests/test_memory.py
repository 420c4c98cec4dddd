"""Want of memory is told from other faults, whichever library found out."""

import pytest

from emergraph.errors import InvalidInputError
from emergraph.memory import ran_out_of_memory

SAID = [
    MemoryError(),
    RuntimeError("std::bad_alloc"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8000 bytes."),
    RuntimeError("BFCArena: Failed to allocate memory for requested buffer of size 4096"),
    RuntimeError("can't start new thread"),
    ImportError("libparquet.so.2600: failed to map segment from shared object"),
    ImportError("libarrow_compute.so.2600: cannot map zero-fill pages"),
    ImportError("libstdc++.so.6: cannot change memory protections"),
    ImportError("libgomp.so.1: cannot allocate memory in static TLS block"),
    ImportError("Encountered an error while initializing the extension."),
    OSError(12, "Cannot allocate memory"),
    Exception("Out of Memory Error: failed to allocate data of size 16.0 MiB"),
    Exception("malloc of size 1073741824 failed"),
    Exception("realloc of size 64 failed"),
    Exception("memory allocation of 1520 bytes failed"),
    Exception("OpenBLAS error: Memory allocation still failed after 10 retries, giving up."),
    Exception("OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2"),
    Exception("could not spawn threads: ThreadPoolBuildError { kind: IOError(Os { code: 11 }) }"),
    Exception("<jemalloc>: background thread creation failed (11)"),
    Exception("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"),
]


@pytest.mark.parametrize("error", SAID, ids=str)
def test_what_libraries_say_when_memory_runs_out(error):
    assert ran_out_of_memory(error)


def test_what_led_to_an_error_counts_and_names_from_files_do_not():
    wrapped = InvalidInputError("the folder makes no Net")
    wrapped.__context__ = MemoryError()
    assert ran_out_of_memory(wrapped)
    wrapped.__cause__ = ValueError("odd")  # what is given as the cause counts, not what came before
    assert not ran_out_of_memory(wrapped)
    assert not ran_out_of_memory(InvalidInputError("layer 'out of memory' has no weights"))
    assert not ran_out_of_memory(ValueError("shapes (3, 4) and (5,) do not fit"))
    assert not ran_out_of_memory(None)
