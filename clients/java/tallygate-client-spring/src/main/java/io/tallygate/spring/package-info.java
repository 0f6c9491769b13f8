/** Charges the requests of Spring Boot's servlet apps, or of any servlet container's. */
package io.tallygate.spring;
