mod bed;
mod bursts;
mod faults;
mod life;
mod model;
mod parsers;
mod traces;
