//! Placeholder of refused_starts.
