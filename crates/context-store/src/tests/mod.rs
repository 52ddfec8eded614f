mod bed;
mod life;
