//! Forward frames to records: resumable scanning for whole frames, and decoding of whole frames into borrowed records.
