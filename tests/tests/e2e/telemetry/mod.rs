//! What Refrain tells about itself: spans and metrics for a collector, queries and alerts that work, access lines.

mod access;
mod answers;
mod gpu;
mod otlp;
mod prometheus;
