//! The pure core of cutover: plan, route, ladder, events and the one transition function.
