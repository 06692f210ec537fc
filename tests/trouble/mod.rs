//! Trouble with the database and with the way there: nothing is lost, nothing counts twice, and it passes by itself.

mod disk;
mod ends;
mod guards;
mod kept;
mod locks;
mod outage;
mod people;
mod proxy;
mod support;
