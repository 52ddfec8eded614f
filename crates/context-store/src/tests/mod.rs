mod bed;
mod life;
mod model;
