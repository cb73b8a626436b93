//! (desired, local, world) -> Plan. Pure and synchronous.
