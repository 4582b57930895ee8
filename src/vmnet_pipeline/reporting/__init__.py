"""What people read: the console table, the plots and the HTML report. Plain data in, figures and text out."""
