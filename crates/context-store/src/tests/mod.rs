mod bed;
mod faults;
mod life;
mod model;
mod parsers;
mod traces;
