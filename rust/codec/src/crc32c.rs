//! The checksum over a header with its field zeroed (R34).
