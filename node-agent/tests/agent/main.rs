//! The agent from outside: against the embedded API server, with simulated drives and as the real process.

#[cfg(test)]
mod bed;
#[cfg(test)]
mod context;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod fabric;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod reconcile;
#[cfg(test)]
mod scratch;
#[cfg(test)]
mod verdicts;
#[cfg(test)]
mod volumes;
