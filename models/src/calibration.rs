//! Costs and latencies of hosts and networks. Every number comes from a named file; `calibrations/` holds the built-in ones.

use livemig_core::units::{Bytes, Span};

/// Costs and latencies that hold for all hosts of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// Name of the built-in calibration or path of the file.
    pub name: String,
    /// One-way latency between two hosts.
    pub latency: Span,
    /// Share of a NIC's rate that is left for payload after headers.
    pub goodput: f64,
    /// Reserving room and opening channels, once per migration.
    pub setup: Span,
    /// Reading the dirty log, per GiB of guest memory.
    pub dirty_log_per_gib: Span,
    /// The tracking fault at the first write to a page after each collection.
    pub tracking_fault: Span,
    /// Stopping all vCPUs.
    pub pause: Span,
    /// Starting the guest at the destination once everything it needs has arrived.
    pub activation: Span,
    /// CPU and device state.
    pub device_state: Bytes,
    /// Handling a missing page at both ends, beside round trip and transfer.
    pub fault_service: Span,
    /// Sender's time per page and stream; bounds the rate of one stream. Zero for no bound.
    pub send_per_page: Span,
    /// Wire bytes beside the content of each page.
    pub page_header: Bytes,
    /// Wire bytes of a page of zeros.
    pub zero_page: Bytes,
    /// Wire bytes of a control message.
    pub control_message: Bytes,
}
