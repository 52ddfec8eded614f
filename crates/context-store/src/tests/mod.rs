mod bed;
mod bursts;
mod faults;
mod life;
mod model;
mod neighbours;
mod parsers;
mod traces;
