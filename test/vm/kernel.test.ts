/** Everything that needs a real kernel. The cases are in guest/. */
import { machineSuite } from './suite.js';

machineSuite('a real kernel', 2_300_000);
