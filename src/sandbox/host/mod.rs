//! A customer host in namespaces of its own.
