//! An io_uring socket driver: accepts, multishot receives, synchronous batches of sends.
