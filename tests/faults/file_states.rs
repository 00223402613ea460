//! Placeholder of file_states.
