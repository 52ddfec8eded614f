//! What controller and node tell each other through the orchestrator.

/// In a volume's context: its first content came from elsewhere, so its file system can be smaller than it.
pub const SOURCED: &str = "strand.dev/sourced";
/// In a publish context: the generation of the attachment.
pub const GENERATION: &str = "strand.dev/generation";
/// In a publish context: `true` where it is for reading only.
pub const READ_ONLY: &str = "strand.dev/readOnly";
