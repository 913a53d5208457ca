//! Throwaway databases, real load, fault injection and history checking.
