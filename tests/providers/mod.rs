//! Probes that call models: real workers and client libraries, a stub for the provider.

mod stub;
