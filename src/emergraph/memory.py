"""Whether an error of another library means that memory ran out.

Each library has its own way to say it: `MemoryError`, a runtime error with `bad_alloc` in its text, an import
error because a shared object could not be mapped, a thread that could not be started.
"""

import re

from emergraph.errors import EmergraphError, chain_of

OUT_OF_MEMORY = re.compile(
    r"bad_alloc|out of memory|MemoryError|alloc\w* of (size )?\d+( bytes)? failed|allocation (still )?failed"
    r"|(cannot|can't|unable to|failed to|could not) allocate|(not enough|insufficient) memory|<jemalloc>"
    r"|failed to map segment|static TLS block|cannot map zero-fill pages|cannot change memory protections"
    r"|can't start new thread|could not spawn threads|pthread_create failed|ThreadPoolBuildError",
    re.IGNORECASE,
)
"""What DuckDB, numpy, OpenBLAS, onnxruntime, Arrow, polars, torch, igraph and the dynamic linker say."""


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that there was too little memory.

    Example:
        >>> ran_out_of_memory(RuntimeError("std::bad_alloc")), ran_out_of_memory(RuntimeError("bad shape"))
        (True, False)
    """
    for one in chain_of(error):
        if isinstance(one, MemoryError):
            return True
        # names from files may hold such words, and messages of this project hold names
        if not isinstance(one, EmergraphError) and OUT_OF_MEMORY.search(str(one)):
            return True
    return False
